"""README and docs: code runs, commands are understood, links lead somewhere, facts are those of JSONs."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
import statistics
import tomllib
from collections import Counter
from pathlib import Path

import keras
import pytest

from benchmarks.claims import CLAIMS
from benchmarks.landscape import MEASURED
from secateur import nets
from secateur.__main__ import COMMANDS, call, parse
from secateur.distillation import get_loss, list_losses
from secateur.pruning import list_criteria
from secateur.recipes.engine.recipe import RecipeFile, published_recipes
from secateur.recipes.engine.step import make_step
from secateur.runs import EXIT_CODES, save_snapshot
from tests.chaos.__main__ import HOSTILE
from tests.chaos.faults import FAULTS
from tests.helpers.forked import Programs

REPO = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted(REPO.glob("docs/*.md")))]


def text(page: str) -> str:
    return (REPO / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    """Its fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def cells(page: str, heading: str) -> list[list[str]]:
    """Rows of the table that begins with the heading."""
    lines = text(page).partition(f"\n{heading}")[2].partition("\n\n")[0].splitlines()
    assert len(lines) > 2, f"{page} has no table {heading!r}"
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


# --- Python: the blocks of a page run one after the other, as at a prompt -----------------------------------

BEHIND = {  # (page, number of the block) → what holds behind it
    ("README.md", 0): """
before, after = pruning.complexity(model).macs, pruning.complexity(small).macs
assert 0.45 * before < after <= 0.5 * before
assert all(type(layer).__module__.startswith("keras.") for layer in small.layers)
assert keras.models.load_model("small.keras").count_params() == small.count_params()
""",
    ("docs/own_models.md", 0): "assert small.get_layer('block_1_expand').filters % 8 == 0",
    ("docs/own_models.md", 1): """
before, after = found.report["rows"][0], found.report["rows"][-1]
assert after["macs"] <= 0.5 * before["macs"] and found.model.layers[-1].activation.__name__ == "softmax"
""",
    ("docs/own_models.md", 2): "assert 'peak' in pruning.list_criteria() and plan.widths",
    ("docs/own_models.md", 3): "assert task.metric_name == 'R²' and small.layers[1].filters == 16",
    ("docs/own_models.md", 4): "assert all(type(x).__module__.startswith('keras') for x in small.layers)",
    ("docs/own_models.md", 5): "assert small.layers[1].filters == 8 and small.layers[2].gain.shape == (8,)",
    ("docs/own_models.md", 6): "assert type(small.get_layer('bounded')) is keras.layers.ReLU",
    ("docs/own_models.md", 7): """
np.testing.assert_allclose(masked(images), small(images), atol=1e-5)
assert pruning.complexity(small).macs <= 0.6 * pruning.complexity(model).macs
""",
    ("docs/own_models.md", 8): """
np.testing.assert_allclose(history["keep_macs"], [1.0, 0.5625, 0.5])
np.testing.assert_allclose(model(images), small(images), atol=1e-5)
assert 0.48 < pruning.complexity(small).macs / pruning.complexity(model).macs <= 0.5
""",
    ("docs/own_models.md", 9): """
parts = ["at_loss", "kd_loss", "label_loss", "loss", "sparse_top_k_categorical_accuracy"]
assert sorted(history) == parts and all(np.isfinite(history[part][0]) for part in parts)
assert keras.models.load_model("student.keras").count_params() == small.count_params()
""",
    (
        "docs/bytes.md",
        0,
    ): "assert done.file < done.arrays / 4 and again.count_params() == small.count_params()",
    ("docs/distillation.md", 0): """
import numpy as np
images, labels = np.random.rand(4, 32, 32, 3).astype("float32"), np.arange(4, dtype="int32")
assert float(lesson({"images": images, "labels": labels})["loss"]) > 0
distiller.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
assert np.isfinite(distiller.fit(images, labels, verbose=0).history["distillation_loss"][0])
""",
    ("docs/distillation.md", 1): """
assert lesson.term_names == ("cross_entropy", "kd", "pooled_mse") and len(terms) == 3
assert all(type(l).__module__.startswith("keras.") for l in keras.models.load_model("student.keras").layers)
""",
}


RUN = """
import sys
from pathlib import Path

for page in sys.argv[1:]:
    print(page, flush=True)
    exec(compile(Path(page).read_text(), page, "exec"), {"__name__": "__main__"})
"""


def test_python_runs(programs: Programs, tmp_path: Path) -> None:
    """All pages in one process."""
    demo = tmp_path / "run" / "demo"
    demo.mkdir(parents=True)
    save_snapshot(demo / "snap_baseline.pkl", nets.snapshot_of(nets.build("ResNet-20")))
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(demo / "compact.keras")
    scripts = []
    for page in PAGES:
        if found := blocks(page, "python"):
            code = "\n".join(block + BEHIND.get((page, i), "") + "\n" for i, block in enumerate(found))
            scripts.append(f"{Path(page).stem}.py")
            (tmp_path / scripts[-1]).write_text(code)
    done = programs.run_code(RUN, *scripts, cwd=tmp_path, environment={"HOME": str(tmp_path)})
    assert done.code == 0, done.err[-2000:]


def test_what_holds_behind_a_block_names_one() -> None:
    assert all(len(blocks(page, "python")) > number for page, number in BEHIND)


def test_the_ten_lines_are_eight() -> None:
    """Comments at the ends of lines; no fence without a language hides code."""
    assert len(blocks("README.md", "python")[0].replace("\n\n", "\n").splitlines()) == 8
    for page in PAGES:
        assert not re.search(
            r"^    (import|from) ", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL), re.M
        )


# --- commands -----------------------------------------------------------------------------------------------

PROGRAMS = {  # how a line begins → command of the one program
    **{f"secateur {name}": name for name in COMMANDS},
    "python train_cifar.py": "train",
    "python test.py": "test",
}
OTHERS = ("make", ".", ".ci/run")


def commands() -> list[str]:
    lines = (
        line.partition(" #")[0].strip()
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.splitlines()
    )
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("line", commands())
def test_a_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(blocks("docs/recipes.md", "toml")[0])
    for name in ("my_layers.py", "my_loss.py"):
        (tmp_path / name).write_text("")
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", text("Makefile"), re.MULTILINE)
    elif words[0] not in OTHERS:
        start = next(start for start in PROGRAMS if f"{line} ".startswith(f"{start} "))
        name = PROGRAMS[start]
        only_read = dataclasses.replace(COMMANDS[name], run="builtins:repr", tensorflow=False)
        monkeypatch.setitem(COMMANDS, name, only_read)
        call(name, words[len(start.split()) :], start)


def test_every_command_is_shown() -> None:
    """But for `report` and its like, which a run prints by itself."""
    shown = {
        name
        for start, name in PROGRAMS.items()
        if any(f"{line} ".startswith(f"{start} ") for line in commands())
    }
    assert set(COMMANDS) - shown <= {"report"}


@pytest.mark.parametrize("text_", blocks("docs/recipes.md", "toml"))
def test_recipes_of_ones_own_are_recipes(text_: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text_)
    parse("train", ["--recipe", str(tmp_path / "mine.toml")])
    steps = RecipeFile.read(tmp_path / "mine.toml").steps
    assert steps[0]["kind"] == "dense" and [make_step(step) for step in steps]


def test_every_published_recipe_is_in_the_table() -> None:
    named = {
        name
        for row in cells("docs/recipes.md", "| recipe | system |")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert set(published_recipes()) - {"distill"} <= named


def test_options_of_losses_are_those_that_they_take() -> None:
    said = {}
    for row in cells("docs/distillation.md", "| loss | options |"):
        names = [re.findall("`(\\w+)`", cell) for cell in row]
        for losses, options in zip(names[::2], names[1::2], strict=True):
            said |= dict.fromkeys(losses, options)
    ours = [
        key for key in list_losses() if get_loss(key).__module__.startswith("secateur.distillation.losses.")
    ]
    assert sorted(said) == sorted(ours)
    for key in ours:
        assert said[key] == [name for name in get_loss(key).option_names() if "_layer_name" not in name], key
    assert f"{len(ours)} losses".replace("17", "seventeen") in text("README.md")


def test_criteria_are_counted() -> None:
    assert f"{len(list_criteria())} criteria" in text("README.md")


# --- links and facts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text(page)):
        path, _, anchor = link.partition("#")
        target = (REPO / page).parent / path if path else REPO / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(
                r"^#+ (.*)$", re.sub(r"```.*?```", "", target.read_text(), flags=re.S), re.M
            )
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, link


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_sources_exist(page: str) -> None:
    rooms = "|".join(path.parent.name for path in REPO.glob("*/__init__.py"))
    for path in re.findall(rf"`((?:{rooms})/[\w/.*]*)`", text(page)):
        assert any(REPO.glob(path)), path


def result(name: str) -> dict:
    return json.loads((REPO / "benchmarks" / "results" / f"{name}.json").read_text())


def named(rows: list[dict], name: str) -> dict:
    return next(row for row in rows if row["name"] == name)


def accuracy() -> str:
    (ekg,) = (row for row in result("accuracy")["rows"] if row["system"] == "EKG, memory bank")
    dense_ms = ekg["ms_litert"] * ekg["speed_up_litert"]
    return (
        f"EKG leaves {ekg['macs'] / ekg['dense_macs']:.1%} {ekg['epochs']} epochs "
        f"{ekg['test_before']:.2%} {ekg['test_after']:.2%} {dense_ms:.1f} {ekg['ms_litert']:.1f} ms 128"
    )


def fewest_bytes() -> str:
    dense, small = (named(result("fewest_bytes")["rows"], name) for name in ("dense", "that as .kpz"))
    return f"{dense['bytes']:,} {small['bytes']:,} {small['test_accuracy']:.2%}"


def applications() -> str:
    rows = result("applications")["rows"]
    halved = [row for row in rows if 0.49 < row["macs_left"] <= 0.5 and not row["problems"]]
    worst = math.ceil(1e7 * max(row["masked_against_compact"] for row in rows)) / 10
    return f"{len(halved)} of {len(rows)} {worst:g}·10⁻⁶"


def torch_pruning() -> str:
    rows = result("torch_pruning")["nets"]["ResNet-56"]
    ours, theirs = named(rows, "ours"), named(rows, "Torch-Pruning, 400 steps")
    return f"400 steps {ours['median']:.3f} {theirs['median']:.2f} s"


def train_step() -> str:
    found = result("train_step")
    ours, theirs = named(found["rows"], "ours"), named(found["rows"], "PyTorch, channels_last")
    return f"batch {found['batch']} 2.13 {1e3 * ours['median']:.0f} {1e3 * theirs['median']:.0f} ms"


FACTS = {f.__name__: f for f in (accuracy, fewest_bytes, applications, torch_pruning, train_step)}


def numbers(words: str) -> list[str]:
    """Without the names of networks and of the five threes of a title."""
    return sorted(re.findall(r"\d[\d.,]*\d|\d", re.sub(r"ResNet-\d+|\([^)]*\)", "", words)))


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_is_that_of_its_json(name: str) -> None:
    (row,) = (row for row in cells("README.md", "| fact | measured |") if f"results/{name}.json" in row[-1])
    assert numbers(" ".join(row[:2])) == numbers(FACTS[name]())


def test_every_fact_has_its_json() -> None:
    assert len(cells("README.md", "| fact | measured |")) == len(FACTS)


def test_full_schedules_are_those_of_their_json() -> None:
    """Runs that differ in their seed alone are one row; the page leaves out those cut off before half."""
    found: dict[str, list[dict]] = {}
    for row in result("full_schedules")["rows"]:
        if row["trained_epochs"] >= row["epochs"] / 2:
            found.setdefault(row["name"].rpartition("-")[0], []).append(row)
    shown = cells("docs/recipes.md", "| run | MACs | epochs | seeds |")
    assert len(shown) == len(found)
    for (_, macs, epochs, seeds, test, rate), group in zip(shown, found.values(), strict=True):
        first, scores = group[0], [100 * row["test_accuracy"] for row in group]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(group) > 1 else ""
        assert macs == f"{first['macs']:,}" and seeds == str(len(group))
        assert epochs == f"{first['trained_epochs']} of {first['epochs']}"
        assert test == f"{statistics.mean(scores):.2f}{spread}"
        assert rate == f"{statistics.median(row['images_per_second'] for row in group):,.0f}"


def test_what_was_tried_is_that_of_its_json() -> None:
    """The page has all tries of a fault in one row, and says of which faults the file has none."""
    found: dict[str, list[dict]] = {}
    for row in result("reliability")["rows"]:
        found.setdefault(row["fault"], []).append(row)
    assert found.keys() <= {*FAULTS, HOSTILE}
    waiting = re.search(r"The file has no tries yet of (.*?)\.\n", text("docs/reliability.md"), re.DOTALL)
    assert waiting is None or " ".join(waiting[1].split()) == "; ".join(f for f in FAULTS if f not in found)
    assert (waiting is None) == ({*FAULTS} <= found.keys())
    shown = cells("docs/reliability.md", "| fault, tried | on | tries | survived |")
    assert [row[0] for row in shown] == [*found]
    for (_, on, tries, survived), rows in zip(shown, found.values(), strict=True):
        total = {key: sum(row[key] for row in rows) for key in ("tries", "survived", "native")}
        native = f", {total['native']} ended by native code" * bool(total["native"])
        places = [row["where"] for row in rows]
        assert on == (f"{len(places)} kinds" if rows[0]["fault"] == HOSTILE else ", ".join(places))
        assert (tries, survived) == (f"{total['tries']:,}", f"{total['survived']:,}{native}")


@pytest.mark.parametrize("depth", [20, 56])
def test_the_study_of_teaching_is_that_of_its_json(depth: int) -> None:
    found = result(f"teaching_resnet_{depth}")
    section = (
        text("docs/distillation.md")
        .partition("### Why KD can hold a network back")[2]
        .partition("## In Python")[0]
    )
    lengths = " | ".join(f"{part['gradient']:#.3g}" for part in found["gradients"][1:])
    assert f"| ResNet-{depth}: length | " in section and lengths in section
    assert all(f"{part['cosine']:.2f}" in section for part in found["gradients"][1:])
    assert all(f"{100 * row['holdout_accuracy']['mean']:.1f}" in section for row in found["rows"])


def test_the_study_of_landscapes_is_that_of_its_json() -> None:
    found, page = result("landscape"), text("docs/recipes.md")
    drawn = [row for row in found["rows"] if row["name"].startswith("random")]
    final = {"final_loss": "loss", "final_accuracy": "accuracy"}

    def interval(one: list[float]) -> str:
        return "{:+.2f} ({:+.2f} … {:+.2f})".format(*one)

    assert cells("docs/recipes.md", "| measured before | with, after fine-tuning | Pearson | Spearman |") == [
        [MEASURED[c["measured"]], final[c["final"]], interval(c["pearson"]), interval(c["spearman"])]
        for c in found["correlations"]
    ]
    styles = {"loss": ".2f", "condition": ".4f", "noise": ".3f", "final_loss": ".3f", "final_accuracy": ".2f"}

    def shown(name: str, rows: list[dict]) -> list[str]:
        each = {key: [(100 if key == "final_accuracy" else 1) * row[key] for row in rows] for key in styles}
        means = [format(statistics.mean(each[key]), style) for key, style in styles.items()]
        spread = [format(statistics.stdev(v), styles[k]) if len(v) > 1 else "" for k, v in each.items()]
        return [name, *(f"{m} ± {s}" if s else m for m, s in zip(means, spread, strict=True))]

    names = {"l1": "L1", "fpgm": "FPGM", "g_a": "NGGM", "EKG": "EKG's search"}
    others = [shown(names[row["name"]], [row]) for row in found["rows"] if row["name"] in names]
    header = "| sub-networks | loss | condition | noise | loss after | accuracy after, % |"
    assert cells("docs/recipes.md", header) == [shown(f"{len(drawn)} random", drawn), *others]
    assert f"{len(drawn)} random sub-networks" in page and f"{found['steps']} steps" in page


def test_seconds_until_an_answer_are_those_of_their_json() -> None:
    rows, page = result("start_up")["rows"], text("docs/performance.md")
    shown = cells("docs/performance.md", "| command | s | of TensorFlow's import |")
    assert shown == [[row["name"], f"{row['median']:.2f}", f"{row['ratio']:.2f}"] for row in rows]
    tensorflow, *quick, report = [row["median"] for row in rows][:6]
    assert f"alone takes {tensorflow:.2f} s" in page and max(quick) < 0.4
    assert f"drawn again in {report:.2f} s" in " ".join(page.split())


def test_scale_is_that_of_its_json() -> None:
    found, page = result("scale"), text("docs/performance.md")

    def ms(row: dict) -> str:
        return f"{1e3 * row['median']:.4g}"

    (half,) = result("bfloat16")["rows"]
    assert f"has {100 * half['test_after']:.2f} % of the test images right in it (`bfloat16.json`)" in page
    by_name = {row["name"]: row for part in ("reading", "search") for row in found[part]}
    ours = by_name["ours"]
    assert f"needs {ours['ratio']:.3f} of the time" in page
    assert f"({ms(ours)} and {ms(by_name['plain tf.data'])} ms an image)" in page
    assert f"takes {ms(by_name['1 of 2'])} ms for each of its candidates on one" in page
    assert f"{ms(by_name['2 of 2'])} ms on two" in page
    memory = cells("docs/performance.md", "| images | in their files | MB |")
    assert memory == [
        [f"{row['images']:,}", "yes" if row["stream"] else "no", f"{row['bytes'] / 1e6:,.0f}"]
        for row in found["memory"]
    ]
    shown = cells("docs/performance.md", "| devices | float32, ms | `mixed_bfloat16`, ms | ratio |")
    pairs = zip(found["steps"][::2], found["steps"][1::2], strict=True)
    assert shown == [
        [f"{full['devices']}", ms(full), ms(half), f"{half['ratio']:.2f}"] for full, half in pairs
    ]


def test_other_outputs_are_measured_as_their_json_says() -> None:
    def spread(row: dict, name: str) -> str:
        return f"{100 * row[name]['mean']:.2f} ± {100 * row[name]['sd']:.2f}"

    shown = cells("docs/own_models.md", "| what it tells | loss | measured by |")
    names = ("dense_holdout", "cut_holdout", "tuned_holdout", "dense_test", "tuned_test")
    assert [row[1:] for row in shown] == [
        [f"`{row['loss']}`", row["metric"], f"{row['tuned_macs'] / row['dense_macs']:.1%}".replace("%", " %"),
         *(spread(row, name) for name in names)]
        for row in result("tasks")["rows"]
    ]  # fmt: skip


def test_the_matrix_is_whole() -> None:
    states = Counter(cell["state"] for cell in result("matrix")["cells"].values())
    assert states == {"done": 6 * 15} and "Fifteen recipes" in text("docs/own_models.md")
    undisturbed = [name for name, cell in result("matrix")["cells"].items() if not cell["killed"]]
    assert all(name.endswith("int8") for name in undisturbed), "these are over before they can be killed"


def test_claims_are_judged_by_their_json() -> None:
    shown = cells("docs/claims.md", "| paper | says | compared |")
    assert shown == [[*claim.cells()] for claim in CLAIMS]


def test_the_picture_is_that_of_its_json() -> None:
    """Widths that EKG's search leaves, as the picture's labels say them to a reader who sees none."""
    (searched,) = (one for one in result("search_step")["searches"] if one["name"] == "float32")
    labels = " ".join(re.findall(r'aria-label="([^"]*)"', text("docs/ekg_resnet56_widths.svg")))
    shown = re.findall(r"([\w.]+) (\d+) to (\d+)", labels)
    assert {group: int(after) for group, _, after in shown} == searched["widths"]
    narrower = sum(int(before) > int(after) for _, before, after in shown)
    assert f"{narrower} of {len(shown)} groups are narrower](docs/ekg_res" in text("README.md")


def test_exit_codes_are_those_of_the_programs() -> None:
    def codes(cell: str) -> set[int]:
        return {int(code) for code in re.findall(r"\d+", cell)}

    shown = [code for row in cells("docs/runs.md", "| code | meaning |") for code in codes(row[0])]
    assert sorted(shown) == sorted(EXIT_CODES)
    tables = text("docs/reliability.md").split("| fault | what happens | code |")[1:]
    rows = [
        line.strip("|").split(" | ")
        for part in tables
        for line in part.partition("\n\n")[0].splitlines()
        if line.startswith("| ")
    ]
    assert len(rows) > 20 and all(codes(row[2]) <= EXIT_CODES.keys() for row in rows)


def test_the_version_is_one() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"version: {version}\n" in text("CITATION.cff") and f"## {version} " in text("CHANGELOG.md")
    assert f'__version__ = "{version}"' in text("secateur/__init__.py")
