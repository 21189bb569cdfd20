"""Who may import whom, read off the sources; and what must come without TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
# Arrows point down: a room may import itself and what stands in its row.
BASE = {"runs"}
MIDDLE = {"nets", "dataloader", "op_utils", "exports"}
UPPER = {"pruning", "distillation", "coding"}
MAY_IMPORT = {
    "runs": set(),
    "nets": BASE,
    "dataloader": BASE,
    "exports": BASE | {"nets"},
    "compute": BASE | {"nets", "dataloader"},  # whose door is op_utils
    "op_utils": {"compute"},
    **dict.fromkeys(sorted(UPPER), BASE | MIDDLE),
    "reports": BASE,
    "recipes": BASE | MIDDLE | UPPER | {"reports"},
    "train_cifar": BASE | MIDDLE | UPPER | {"reports", "recipes"},
    "test": BASE | MIDDLE | UPPER | {"reports", "recipes"},
    "callbacks": BASE | MIDDLE | UPPER,
}


def sources():
    """(room, file) of every source of the project."""
    for room in MAY_IMPORT:
        yield from ((room, path) for path in sorted((REPO / room).rglob("*.py")))
        for folder in (REPO, REPO / "secateur"):
            if (folder / f"{room}.py").is_file():
                yield room, folder / f"{room}.py"


def imported(path: Path) -> set[str]:
    """Full names of what a file imports anywhere, also inside functions and by `import_module("literal")`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
        ):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return found


def test_there_is_something_to_read():
    rooms = {room for room, _ in sources()}
    assert {
        "runs",
        "nets",
        "dataloader",
        "coding",
        "exports",
        "compute",
        "op_utils",
        "pruning",
        "distillation",
        "recipes",
        "reports",
        "train_cifar",
        "callbacks",
    } <= rooms


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_point_down(room):
    for own, path in sources():
        if own == room and path.name != "__main__.py":  # a program stands above all rooms
            ours = (name.split(".") for name in imported(path) if name.startswith("secateur."))
            rooms = {names[1] for names in ours} & set(MAY_IMPORT)
            assert rooms <= MAY_IMPORT[room] | {room}, f"{path.relative_to(REPO)} imports {rooms}"


INSIDE = {  # bottom up: a folder or file of a room imports itself and what stands before it
    "compute": "rules precision workers devices gradients optimizer trainer evaluation batch_norm",
    "pruning": "conventions rounding layers plan groups shrink count "
    "score choose latency planning search constrain landscape",
    "coding": "entropy sharing int8 file",
}


@pytest.mark.parametrize("room", INSIDE)
def test_arrows_point_down_inside_of_rooms(room):
    order = INSIDE[room].split()
    found = {
        path.name.removesuffix(".py") for path in (REPO / room).iterdir() if not path.name.startswith("__")
    }
    assert found == set(order)
    for path in (REPO / room).rglob("*.py"):
        own = path.relative_to(REPO / room).parts[0].removesuffix(".py")
        if own in order:
            names = {name.split(".")[2] for name in imported(path) if name.startswith(f"secateur.{room}.")}
            above = names & set(order[order.index(own) + 1 :])
            assert not above, f"{path.relative_to(REPO)} imports {sorted(above)}"


def test_pages_are_made_of_the_report_alone():
    for own, path in sources():
        if own == "reports" and path.name != "command.py":
            foreign = {name for name in imported(path) if name.startswith("secateur.runs")}
            assert foreign <= {"secateur.runs.text", "secateur.runs.text.number"}, path.name


PLAIN = """
    coding coding.file.accounting coding.file.array_file coding.file.inspection coding.sharing.by_rate
    coding.sharing.kmeans coding.sharing.share dataloader exports pruning pruning.choose.ladders
    pruning.choose.published pruning.constrain.admm pruning.constrain.single_weights pruning.plan
    pruning.score.criteria.mixes pruning.search.ekg_rules pruning.search.settings pruning.shrink.weights
    recipes.engine.command recipes.engine.config recipes.engine.recipe
    recipes.training.schedules runs
""".split()


def test_plans_criteria_settings_data_and_options_come_without_tensorflow():
    lines = ["import importlib, sys"]
    for name in PLAIN:
        lines.append(f"importlib.import_module('secateur.{name}')")
        lines.append(f"assert 'tensorflow' not in sys.modules, {name!r}")
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=REPO, check=True, timeout=120)
