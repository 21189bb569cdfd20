"""The notebook holds the cells of its text twin, and runs from top to bottom."""

import json
import re

import pytest

from tests.helpers.notebook import EXAMPLES, notebook

RUN = """
import json, sys
seen = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), seen)
assert seen["macs"]["after"] <= 0.5 * seen["macs"]["before"]
assert min(seen["accuracy"].values()) > 0.9
"""


def test_both_have_the_same_cells():
    """After a change of one: python -m tests.helpers.notebook"""
    source = (EXAMPLES / "colab.py").read_text()
    written = (EXAMPLES / "colab.ipynb").read_text()
    assert written == notebook(source)
    cells = json.loads(written)["cells"]
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert text.split() == re.sub(r"^# ?(%%.*)?", "", source, flags=re.M).split()
    assert "http" not in text


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_cells_run(programs, tmp_path):
    """One behind the other in one namespace, as a notebook's kernel does it."""
    done = programs.run_code(RUN, EXAMPLES / "colab.ipynb", cwd=tmp_path)
    assert done.code == 0, done.err[-2000:]
    assert (tmp_path / "demo" / "report.html").is_file() and (tmp_path / "small.keras").is_file()
    rows = re.findall(r"^(\w+) +([\d,]+) MACs +([\d.]+) %", done.out, re.M)
    assert [name for name, *_ in rows][-5:] == ["baseline", "slimmed", "trained", "before", "after"]
