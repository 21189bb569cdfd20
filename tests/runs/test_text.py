"""Tables for the terminal."""

from secateur.runs.text import table


def test_numbers_lie_to_the_right_and_long_titles_are_wrapped():
    rows = [("dense", "853,018", "–"), ("after", "353,018 (41 %)", "12.5")]
    assert table(("network", "parameters", "milliseconds of a call"), rows, wrap=12).splitlines() == [
        "network      parameters  milliseconds",
        "                            of a call",
        "dense           853,018             –",
        "after    353,018 (41 %)          12.5",
    ]


def test_words_lie_to_the_left():
    assert table(("name", "kept as"), [("a", "raw"), ("layer", "fixed 3")]).splitlines() == [
        "name   kept as",
        "a      raw",
        "layer  fixed 3",
    ]
