"""One kind of table for all names: entries of the project, of installed packages and of a user's file."""

import sys

import pytest

from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry, import_file

SHAPES = {"circle": 0, "square": 4}


@pytest.fixture
def shapes():
    return Registry("shape", "shapes", SHAPES, option="--shape")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a module with entry points of the group `secateur.shapes`, as pip would."""

    def install(code: str, points: str) -> None:
        about = tmp_path / "my_shapes-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-shapes\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[secateur.shapes]\n{points}\n")
        (tmp_path / "my_shapes.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "my_shapes", raising=False)

    return install


def test_it_is_a_mapping_in_the_order_of_registration(shapes):
    shapes.register(3, name="triangle")
    assert list(shapes) == ["circle", "square", "triangle"] and len(shapes) == 3
    assert shapes["triangle"] == shapes.find("triangle") == 3
    assert shapes.get("hexagon") is None and "hexagon" not in shapes


def test_functions_register_under_their_name_or_another(shapes):
    @shapes.register
    def star() -> int:
        return 10

    @shapes.register(name="pentagram")
    def other() -> int:
        return 5

    assert shapes["star"] is star and shapes["pentagram"] is other


@pytest.mark.parametrize("name", ["sqare", "SQUARE"])
def test_an_unknown_name_is_answered_with_the_nearest(shapes, name):
    with pytest.raises(UsageError) as caught:
        shapes.find(name, more=", or a number of corners")
    message = f"Unknown shape. Received: --shape={name!r}. Did you mean 'square'? "
    assert str(caught.value) == f"{message}Valid: circle, square, or a number of corners"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", [["square"], None, 4])
def test_what_is_no_text_is_no_name(shapes, name):
    with pytest.raises(UsageError, match="Unknown shape"):
        shapes.find(name)


def test_a_name_belongs_to_one_definition(shapes):
    def square() -> int:
        return 4

    with pytest.raises(
        UsageError, match="A shape needs a name of its own. Received: name='square', which is"
    ):
        shapes.register(square)
    with pytest.raises(UsageError, match="A shape needs a name of its own. Received: name=''"):
        shapes.register(5)
    shapes.register(square, name="again")
    shapes.register(square, name="again")
    assert shapes["square"] == 4


def test_the_files_of_a_folder_are_imported_at_the_first_look(tmp_path, monkeypatch):
    folder = tmp_path / "shapes_of_a_folder"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "lines.py").write_text("from builtins import TABLE\n\n@TABLE.register\ndef line(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    table = Registry("shape", "shapes", folder="shapes_of_a_folder")
    monkeypatch.setattr("builtins.TABLE", table, raising=False)
    assert "shapes_of_a_folder" not in sys.modules
    with pytest.raises(UsageError, match="name='line', which is shapes_of_a_folder.lines.line"):
        table.register(3, name="line")
    assert list(table) == ["line"]


def test_an_entry_point_is_loaded_when_its_name_is_asked_for(shapes, package):
    package("def hexagon(): pass\n", "hexagon = my_shapes:hexagon")
    assert list(shapes) == ["circle", "square", "hexagon"] and "my_shapes" not in sys.modules
    assert shapes["hexagon"] is sys.modules["my_shapes"].hexagon


def test_an_entry_point_that_cannot_be_imported_says_why(shapes, package):
    package("1 / 0\n", "hexagon = my_shapes:hexagon")
    assert shapes["square"] == 4
    with pytest.raises(
        UsageError, match=r"\(ZeroDivisionError: .*hexagon = my_shapes:hexagon of secateur.sh"
    ):
        shapes.find("hexagon")


def test_a_file_is_run_once_and_its_classes_know_their_module(tmp_path, shapes, monkeypatch):
    file = tmp_path / "my.shapes.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\nfrom builtins import TABLE\n\n"
        "@dataclass\nclass Corners:\n    count: int\n\nTABLE.register(Corners(6), name='hexagon')\n"
    )
    monkeypatch.setattr("builtins.TABLE", shapes, raising=False)
    import_file(file)
    first = shapes["hexagon"]
    import_file(str(file))
    assert shapes["hexagon"] is first and first.count == 6


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, "There is no such Python file"),
        ("x = (", r"It cannot be imported \(SyntaxError: '\(' was never closed .*line 1\)\)"),
        (
            "import shapes_that_nobody_has",
            r"\(ModuleNotFoundError: No module named 'shapes_that_nobody_has'\)",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(tmp_path, code, reason):
    file = tmp_path / "mine.py"
    if code:
        file.write_text(code)
    with pytest.raises(UsageError, match=f"{reason}. Received: --import .*mine.py"):
        import_file(file)


def test_what_is_no_python_is_refused(tmp_path):
    (tmp_path / "mine.toml").touch()
    with pytest.raises(UsageError, match="There is no such Python file. Received: --import .*mine.toml"):
        import_file(tmp_path / "mine.toml")
