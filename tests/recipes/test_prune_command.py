"""`python -m pruning` as a shell sees it: on a saved MobileNetV2, on images, and on what it cannot use."""

import html
import json
import re
import zipfile
from functools import partial

import keras
import numpy as np
import pytest

from secateur import __main__ as program
from secateur.exports import litert_runner
from secateur.exports.parity import compare
from secateur.pruning import complexity
from secateur.runs import EXIT_CODES

PROGRAM = "pruning/__main__.py"
parse = partial(program.parse, "prune")


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """A MobileNetV2 for 64×64 images with statistics of BN as of a trained network, saved by Keras."""
    model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classes=10)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.8, 1.2, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    path = tmp_path_factory.mktemp("models") / "mobilenet.keras"
    model.save(path)
    return path


def left(out: str, row: str) -> float:
    """The share in the last column of the table of costs."""
    return float(re.search(rf"^{row} .* ([\d.]+)%$", out, re.MULTILINE)[1]) / 100


def test_a_dry_run_prints_what_would_be_done_and_writes_nothing(programs, mobilenet, tmp_path):
    done = programs.run(PROGRAM, mobilenet, "--keep_macs", 0.5, "--dry_run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert 0.49 < left(done.out, "MACs") <= 0.5
    assert {"block_1_expand", "Conv_1", "milliseconds", "because"} <= set(done.out.split())
    assert list(tmp_path.iterdir()) == []


def test_a_saved_mobilenet_becomes_half_the_model_and_a_litert_file(programs, mobilenet, tmp_path):
    options = [
        "--keep_macs",
        0.5,
        "--round_to",
        8,
        "-o",
        "small.keras",
        "--export",
        "litert",
        "--report",
        "r.html",
    ]
    done = programs.run(PROGRAM, mobilenet, *options, cwd=tmp_path)
    assert done.code == 0, done.err
    assert {path.name for path in tmp_path.iterdir()} == {"small.keras", "small.tflite", "r.html", "r.json"}
    before, small = (keras.models.load_model(path) for path in (mobilenet, tmp_path / "small.keras"))
    assert 0.45 < complexity(small).macs / complexity(before).macs <= 0.5
    assert f"{complexity(small).macs:,}" in done.out and f"{complexity(before).macs:,}" in done.out
    widths = {w["group"]: w["after"] for w in json.loads((tmp_path / "r.json").read_text())["widths"]}
    assert {small.get_layer(name).output.shape[-1] for name in widths} == set(widths.values())
    assert all(width % 8 == 0 for width in widths.values())
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    lite = litert_runner((tmp_path / "small.tflite").read_bytes(), 2)(images)
    assert compare([small(images).numpy()], [lite]).relative < 1e-4
    page = html.unescape((tmp_path / "r.html").read_text())
    assert all(name in page for name in widths) and "masked model" in page


def test_images_mend_and_train_the_pruned_model(programs, stripes, tmp_path):
    options = [
        "--keep_macs",
        0.3,
        "--criterion",
        "taylor",
        "--data",
        stripes / "images",
        "--finetune_epochs",
        3,
    ]
    done = programs.run(PROGRAM, stripes / "stripes.keras", *options, "-o", "small.keras", cwd=tmp_path)
    assert done.code == 0, done.err
    found = {
        name: float(x) for name, x in re.findall(r"^(before|pruned|fine-tuned) +([\d.]+)$", done.out, re.M)
    }
    assert found["before"] == found["fine-tuned"] == 100
    assert "re-estimated" in done.out and "accuracy on 8 images held out" in done.out
    saved = keras.models.load_model(tmp_path / "small.keras")
    assert not saved.compiled and saved.name == "stripes"


def test_the_model_is_there_when_an_export_fails(programs, stripes, tmp_path):
    (tmp_path / "small.tflite").mkdir()  # no file can take its place
    options = ["--keep", 0.5, "-o", "small.keras", "--export", "litert"]
    done = programs.run(PROGRAM, stripes / "stripes.keras", *options, cwd=tmp_path)
    assert done.code == 5 and "small.tflite" in done.err, done.err
    assert keras.models.load_model(tmp_path / "small.keras").name == "stripes"


def test_a_model_that_litert_cannot_run_is_pruned_without_milliseconds(programs, tmp_path):
    x = keras.Input((4, 4, 1))
    y = keras.layers.Conv2D(8, 3, padding="same", name="wide")(x)
    y = keras.layers.Reshape((4, 4))(keras.layers.Conv2D(1, 1)(y))
    keras.Model(x, keras.ops.slogdet(y)[1]).save(tmp_path / "slogdet.keras")
    options = ["slogdet.keras", "--keep", 0.5, "-o", "small.keras", "--report", "r.html"]
    done = programs.run(PROGRAM, *options, cwd=tmp_path)
    assert done.code == 0, done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert "milliseconds are not measured" in line and "LiteRT lacks" in line
    assert re.search(r"^milliseconds +– +– +–$", done.out, re.M)
    assert [row["ms"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]] == [None, None]
    page = (tmp_path / "r.html").read_text()
    assert "could not be measured" in page and "of the milliseconds" not in page
    done = programs.run(PROGRAM, "slogdet.keras", "--keep_ms", 0.5, "--dry_run", cwd=tmp_path)
    assert done.code == 2 and "LiteRT lacks" in done.err, done.err


@pytest.mark.parametrize("words", [["--pixels", "-1..1"], ["--pixels=-1..1"]])
def test_a_range_of_pixels_may_begin_with_a_minus(words):
    options = parse(["model.keras", "--keep", "0.5", *words, "-o", "small.keras"])
    assert (options.pixels, options.output) == ("-1..1", "small.keras")


def test_a_budget_of_milliseconds_is_measured(programs, stripes, tmp_path):
    options = ["--keep_ms", 0.6, "--cache", "cache", "--ms_batch", 32, "--dry_run"]
    done = programs.run(PROGRAM, stripes / "stripes.keras", *options, cwd=tmp_path)
    assert done.code == 0, done.err
    assert 0 < left(done.out, "MACs") < 1
    rows = re.findall(r"^ *([\d.]+) +([\d.]+)$", done.out, re.M)  # milliseconds predicted and measured
    assert len(rows) >= 3
    [cache] = (tmp_path / "cache").iterdir()
    measured = json.loads(cache.read_text())["ms"]
    assert any(key.startswith("Conv2D") and key.endswith("[16, 16, 3]") for key in measured)


@keras.saving.register_keras_serializable("test_prune_command")
class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Name → a model file that cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.keras").write_text("accuracy 93.82 %")
    with zipfile.ZipFile(folder / "zip.keras", "w") as file:
        file.writestr("readme.txt", "nothing")
    (folder / "folder.keras").mkdir()
    foreign = Subclassed()
    foreign(np.zeros((1, 3)))
    foreign.save(folder / "subclassed.keras")
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Softmax()(x)).save(folder / "nothing.keras")
    whole = (folder / "nothing.keras").read_bytes()
    (folder / "rotten.keras").write_bytes(whole.replace(b'"Softmax"', b'"Softmux"', 1))
    return folder


@pytest.mark.parametrize(
    ("model", "options", "code", "said"),
    [
        ("missing.keras", "--keep 0.5", 4, "no such file"),
        ("folder.keras", "--keep 0.5", 4, "no such file"),
        ("missing.keras", "--keep 0.5 -o {bad}/nothing.keras", 4, "missing.keras"),
        ("rotten.keras", "--keep 0.5", 4, "copy or save it again"),
        ("text.keras", "--keep 0.5", 4, "no Keras file"),
        ("zip.keras", "--keep 0.5", 4, "cannot read this model"),
        ("subclassed.keras", "--keep 0.5", 4, "Subclassed"),
        ("nothing.keras", "--keep 0.5", 2, "No channel of this model can be removed"),
        ("stripes", "--keep_macs 0.0001", 2, "smallest net keeps"),
        ("stripes", "--keep_macs 1.5", 2, "Received: keep_macs=1.5"),
        ("stripes", "--keep_mac 0.5", 2, "Did you mean '--keep_macs'?"),
        ("stripes", "", 2, "Give one of --keep, --keep_macs"),
        ("stripes", "--keep 0.5 --keep_ms 0.5", 2, "Received: --keep and --keep_ms"),
        ("stripes", "--keep 0.5 --criterion l3", 2, "Did you mean 'l2'?"),
        ("text.keras", "--keep 0.5 --criterion taylor", 2, "give --data"),  # before the model is read
        ("stripes", "--keep 0.5 --finetune_epochs 1", 2, "Fine-tuning needs images"),
        ("stripes", "--keep 0.5 --export tflite", 2, "Valid: keras, savedmodel, litert, onnx"),
        ("stripes", "--keep 0.5 --data nowhere", 3, "no such folder"),
        ("stripes", "--keep 0.5 --data tfds:mnits", 3, "Did you mean tfds:mnist?"),
        ("stripes", "--keep 0.5 -o nowhere/small.keras", 5, "no such folder"),
        ("stripes", "--keep 0.5 -o small.h5", 2, "needs the ending .keras"),
    ],
)
def test_bad_input_is_one_or_two_lines_and_a_code(
    programs, stripes, bad, tmp_path, model, options, code, said
):
    path = stripes / "stripes.keras" if model == "stripes" else bad / model
    done = programs.run(PROGRAM, path, "-o", "small.keras", *options.format(bad=bad).split(), cwd=tmp_path)
    assert code in EXIT_CODES and done.code == code, done.err[-2000:]
    assert said in done.err and done.err.startswith("error: ") and len(done.err.splitlines()) <= 2, done.err
    assert list(tmp_path.iterdir()) == []
