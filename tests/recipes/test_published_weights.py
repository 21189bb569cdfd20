"""EKG's published checkpoint on the 10,000 test images of CIFAR-10."""

import re

import pytest

from recipes import evaluate
from recipes.config import parse_evaluate


def test_the_published_weights_have_the_published_accuracy(data_dir, cifar10, capsys):
    """93.82 % with moving averages. The file needs its authors' order of the constants; that is found out."""
    pickled = data_dir / "weights" / "ekg_res56_cifar10.pkl"
    if not pickled.is_file():
        pytest.skip(f"no {pickled.name} in {pickled.parent}")
    options = [
        "--gpu_id",
        "0",
        "--arch",
        "ResNet-56",
        "--dataset",
        "CIFAR10",
        "--trained_param",
        str(pickled),
    ]
    (row,) = evaluate.run(parse_evaluate([*options, "--data_path", str(data_dir / "tfds")]))
    assert 100 * row["accuracy"] == pytest.approx(93.82, abs=0.02)
    assert (row["params"], row["macs"], row["count"]) == (855_770, 125_747_840, 10_000)
    assert re.search(r"accuracy 93\.8\d % on 10,000 test images \(moving averages\)", capsys.readouterr().out)
