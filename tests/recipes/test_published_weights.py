"""Published checkpoints on the 10,000 test images of CIFAR-10."""

import re

import pytest

from secateur.__main__ import parse
from secateur.recipes.commands import evaluate

pytestmark = pytest.mark.runs


@pytest.mark.slow
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
    (row,) = evaluate.run(parse("test", [*options, "--data_path", str(data_dir / "tfds")]))
    assert 100 * row["accuracy"] == pytest.approx(93.82, abs=0.02)
    assert (row["params"], row["macs"], row["count"]) == (855_770, 125_747_840, 10_000)
    assert re.search(r"accuracy 93\.8\d % on 10,000 test images \(moving averages\)", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("depth", "accuracy", "params"),
    [(20, 91.73, 269_722), pytest.param(56, 93.39, 853_018, marks=pytest.mark.slow)],
)
def test_weights_from_pytorch_have_their_published_accuracy(
    data_dir, cifar10, capsys, depth, accuracy, params
):
    """TensorFlow's padding would cost them 2.8 and 1.1 points, the constants of CIFAR-10 a few tenths."""
    weights = data_dir / "weights" / f"resnet{depth}_cifar10.safetensors"
    if not weights.is_file():
        pytest.skip(f"no {weights.name} in {weights.parent}")
    options = ["--gpu_id", "0", "--arch", f"ResNet-{depth}", "--dataset", "CIFAR10"]
    options += ["--trained_param", str(weights), "--data_path", str(data_dir / "tfds")]
    (row,) = evaluate.run(parse("test", options))
    assert 100 * row["accuracy"] == pytest.approx(accuracy, abs=0.01)
    assert (row["params"], row["count"]) == (params, 10_000)
