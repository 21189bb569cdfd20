"""Command lines that cannot be understood: code 2, one or two lines, and the nearest valid name."""

import random
from collections.abc import Iterator

import pytest

from secateur.__main__ import COMMANDS, dispatch, parse
from secateur.recipes.commands import options as own
from secateur.recipes.engine.config import EvaluateOptions, RunOptions
from secateur.runs import UsageError, cli

LINES = 100
FIRST = {
    "prune": (own.PruneOptions, "m.keras --keep 0.5 -o s.keras"),
    "train": (RunOptions, "--arch ResNet-8 --dataset DIGITS"),
    "test": (EvaluateOptions, "--trained_param a.pkl"),
    "encode": (own.EncodeOptions, "m.keras -o m.kpz"),
    "decode": (own.DecodeOptions, "m.kpz -o m.keras"),
    "inspect": (own.InspectOptions, "m.kpz"),
    "int8": (own.Int8Options, "m.keras --data images -o m.tflite"),
    "landscape": (RunOptions, "--arch ResNet-8 --dataset DIGITS"),
    "report": (own.ReportOptions, "report.json"),
}


def parts(schema: dict) -> Iterator[dict]:
    yield schema
    for part in [*schema.get("anyOf", []), *filter(None, [schema.get("items")])]:
        yield from parts(part)


def with_a_typo(draw: random.Random, word: str) -> str:
    """One letter doubled, left out, or exchanged with the next."""
    i = draw.randrange(1, len(word) - 1)
    head, letter, after, tail = word[:i], word[i], word[i + 1], word[i + 2 :]
    return head + draw.choice([letter + letter + after, after, after + letter]) + tail


def bad_lines(name: str, draw: random.Random) -> Iterator[tuple[list[str], str]]:
    """Words that are wrong in one place, and the name that the answer has to have."""
    kind, line = FIRST[name]
    schemas = kind.model_json_schema()["properties"]
    flags = [flag for flag, schema in schemas.items() if "first" not in schema and flag != "recipe"]
    while True:
        flag = draw.choice([*flags, "import"])
        good, schema = line.split(), list(parts(schemas.get(flag, {"type": "string"})))
        types = {part["type"] for part in schema if "type" in part} - {"null", "array"}
        choices = [one for part in schema for one in part.get("enum", [])]
        wrong = draw.choice(["typo", "value", "range", "none", "empty", "more"])
        if wrong == "typo" and len(flag) > 4 and (typo := with_a_typo(draw, flag)) not in flags:
            yield [*good, f"--{typo}", "1"], "Did you mean '--"
        elif (
            wrong == "value"
            and choices
            and (typo := with_a_typo(draw, draw.choice(choices) + "xx")) not in choices
        ):
            yield [*good, f"--{flag}", typo], "Did you mean"
        elif wrong == "value" and types <= {"integer", "number"} and types:
            yield [*good, f"--{flag}", draw.choice(["x", "1e", "--", "nan", "0x1", "1,5"])], flag
        elif wrong == "range" and (low := [part["minimum"] for part in schema if "minimum" in part]):
            yield [*good, f"--{flag}", str(low[0] - 1 - draw.randrange(9))], flag
        elif wrong == "none" and types and "boolean" not in types:
            yield [*good, f"--{flag}"], flag
        elif wrong == "empty" and any("pattern" in part for part in schema):
            yield [*good, f"--{flag}", ""], "must name a file or a folder"
        elif wrong == "more":
            yield [*good, "--", "word"], "unrecognized arguments: -- word\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_line_is_answered_in_two_lines_with_code_2(name, capsys):
    draw = random.Random(name)
    lines = bad_lines(name, draw)
    for _ in range(LINES):
        words, said = next(lines)
        assert cli(lambda words=words: dispatch([name, *words], "secateur")) == 2, words
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and said in err, (words, err)
        assert 1 <= len(err.splitlines()) <= 2, (words, err)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_takes_a_variable_without_value_for_a_place(name):
    """The first word of a line, and all flags that name files."""
    kind, line = FIRST[name]
    schemas = kind.model_json_schema()["properties"]
    places = {flag for flag, schema in schemas.items() if any("pattern" in part for part in parts(schema))}
    assert places >= {"file", "model", "output", "report", "train_path", "data", "data_path", "plan"} & set(
        schemas
    )
    for flag in places:
        words = line.split()
        if "first" in schemas[flag] and kind is not RunOptions:
            words[0] = ""
        else:
            words += [f"--{flag}", ""]
        with pytest.raises(UsageError, match=f"--{flag} must name a file or a folder. Received: {flag}="):
            parse(name, words)


def test_the_first_word_may_be_a_flag_and_its_file_may_begin_with_a_minus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.keras").touch()
    rest = ["--keep", "0.5", "-o", "s.keras"]
    assert parse("prune", ["--model=m.keras", *rest]).model == "m.keras"
    assert parse("prune", ["-x.keras", *rest]).model == "-x.keras"
