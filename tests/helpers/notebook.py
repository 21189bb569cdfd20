"""Makes examples/colab.ipynb of examples/colab.py: `python -m tests.helpers.notebook`.

Cells begin with `# %%`, those of text with `# %% [markdown]`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TEXT = " [markdown]"


def notebook(source: str) -> str:
    """The JSON of a notebook (nbformat 4.5) with the cells of a file, and no outputs."""
    parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)[1:]
    cells = [
        _cell(number, kind == TEXT, body.strip("\n"))
        for number, (kind, body) in enumerate(zip(parts[::2], parts[1::2], strict=True))
    ]
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    facts = {"kernelspec": python, "language_info": {"name": "python"}}
    return (
        json.dumps({"cells": cells, "metadata": facts, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"
    )


def _cell(number: int, is_text: bool, body: str) -> dict:
    own = {"id": f"cell-{number:02}", "metadata": {}}
    if is_text:
        body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        return {"cell_type": "markdown", **own, "source": body.splitlines(keepends=True)}
    code = {"execution_count": None, "outputs": [], "source": body.splitlines(keepends=True)}
    return {"cell_type": "code", **own, **code}


if __name__ == "__main__":
    (EXAMPLES / "colab.ipynb").write_text(notebook((EXAMPLES / "colab.py").read_text()))
