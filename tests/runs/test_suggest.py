"""A mistyped name is answered with the one that was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.runs.suggest import closest, nearest

ARCHS = ("ResNet-20", "ResNet-56", "VGG16", "MobileNetV2")
FLAGS = ("--target_rate", "--train_path", "--gpu_id", "-h")
LETTERS = "abcdefghijklmnopqrstuvwxyz-_"


@pytest.mark.parametrize(
    ("received", "valid", "meant"),
    [
        ("resnet56", ARCHS, "ResNet-56"),
        ("VGG-16", ARCHS, "VGG16"),
        ("mobilenet", ARCHS, "MobileNetV2"),
        ("--targetrate", FLAGS, "--target_rate"),
        ("--trian_path", FLAGS, "--train_path"),
        ("float16", ("float32", "mixed_bfloat16", "mixed_float16"), "mixed_float16"),
        ("transformer", ("VGG16",), None),
        ("", ARCHS, None),
        ("anything", (), None),
    ],
)
def test_what_was_meant(received, valid, meant):
    assert closest(received, iter(valid)) == meant
    hint = f"Did you mean {meant!r}? " if meant else ""
    assert nearest(received, iter(valid)) == f"{hint}Valid: {', '.join(valid)}"


@given(st.lists(st.text(LETTERS, min_size=1), min_size=1, unique=True), st.data())
def test_a_valid_name_in_any_case_is_its_own_closest(names, data):
    name = data.draw(st.sampled_from(names))
    assert closest(name.upper(), names) == name


def test_of_many_names_the_most_alike_are_listed():
    names = [f"block{i}_conv" for i in range(100)]
    found = nearest("block42conv", names, 3)
    assert found.startswith("Did you mean 'block42_conv'? Valid: block42_conv, ")
    assert found.count(",") == 2 and found.endswith(" and 97 more")
    assert nearest("b", ["a", "b"], 2) == "Did you mean 'b'? Valid: a, b"
