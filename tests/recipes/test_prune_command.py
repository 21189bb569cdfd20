"""`python -m pruning` as a shell sees it: on a saved MobileNetV2, on images, and on what it cannot use."""

import html
import json
import re
import shutil
import zipfile
from functools import partial

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from secateur import __main__ as program
from secateur.compute import devices
from secateur.exports import litert_runner
from secateur.exports.parity import compare
from secateur.pruning import complexity
from secateur.recipes.steps import train
from secateur.runs import EXIT_CODES, DataError, SecateurError, UsageError, sha256

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


def test_a_saved_mobilenet_becomes_half_the_model_and_a_litert_file(secateur, mobilenet, tmp_path):
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
    out = secateur("prune", mobilenet, *options)
    assert {"block_1_expand", "Conv_1", "milliseconds", "because"} <= set(out.split())
    assert {path.name for path in tmp_path.iterdir()} == {"small.keras", "small.tflite", "r.html", "r.json"}
    before, small = (keras.models.load_model(path) for path in (mobilenet, tmp_path / "small.keras"))
    assert 0.45 < complexity(small).macs / complexity(before).macs <= 0.5
    assert f"{complexity(small).macs:,}" in out and f"{complexity(before).macs:,}" in out
    widths = {w["group"]: w["after"] for w in json.loads((tmp_path / "r.json").read_text())["widths"]}
    assert {small.get_layer(name).output.shape[-1] for name in widths} == set(widths.values())
    assert all(width % 8 == 0 for width in widths.values())
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    lite = litert_runner((tmp_path / "small.tflite").read_bytes(), 2)(images)
    assert compare([small(images).numpy()], [lite]).relative < 1e-4
    page = html.unescape((tmp_path / "r.html").read_text())
    assert all(name in page for name in widths) and "masked model" in page


def test_images_mend_and_train_the_pruned_model(secateur, stripes, tmp_path):
    words = (
        "--keep_macs 0.3 --criterion taylor --finetune_epochs 3 --balanced --report r.html --train_path run"
    )
    options = [*words.split(), "--data", stripes / "images", "-o", "small.keras"]
    out = secateur("prune", stripes / "stripes.keras", *options)
    assert "balanced: each of 2 classes comes" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["dense", "prune", "train"]
    before, _, after = report["rows"]
    assert before["holdout_accuracy"] == after["holdout_accuracy"] == 1
    assert after["macs"] == report["costs"][1]["macs"] <= 0.3 * before["macs"]
    assert re.search(r"^prune: hold-out before 100.00 %, pruned .*re-estimated", out, re.M)
    saved = keras.models.load_model(tmp_path / "small.keras")
    assert not saved.compiled and saved.name == "stripes"
    page = html.unescape((tmp_path / "r.html").read_text())
    assert all(title in page for title in ("Left whole", "Parity", "Costs of the plain models", "Training"))
    digest = sha256(tmp_path / "run" / "snap_train.pkl")
    again = secateur("prune", stripes / "stripes.keras", *options)
    assert sha256(tmp_path / "run" / "snap_train.pkl") == digest, "what is done is not done again"
    assert "epoch 3: loss" in again


def test_a_gpu_and_a_type_are_those_of_every_training(secateur, stripes, tmp_path, monkeypatch):
    seen, computing_in = [], train.computing_in
    monkeypatch.setattr(train, "computing_in", lambda *given: seen.append(given[0]) or computing_in(*given))
    monkeypatch.setattr(devices, "warn", seen.append)
    words = (
        "--keep 0.5 --finetune_epochs 1 --gpu_id 0 1 --dtype mixed_bfloat16 --train_path run -o small.keras"
    )
    secateur("prune", stripes / "stripes.keras", "--data", stripes / "images", *words.split())
    assert seen == [
        "no GPU on this machine, --gpu_id 0 1 is ignored: running on the CPU",
        "mixed_bfloat16",
    ]
    small = keras.models.load_model(tmp_path / "small.keras")
    assert {layer.dtype_policy.name for layer in small.layers} == {"float32"}


@pytest.mark.parametrize("words", ["--gpu_id 0", "--dtype mixed_bfloat16"])
def test_a_gpu_or_a_type_without_images_has_nothing_to_do(words):
    with pytest.raises(UsageError, match=f"^{words.split()[0]} needs images"):
        parse(["model.keras", "--keep", "0.5", "-o", "small.keras", *words.split()])


def test_a_plan_of_a_nested_model_has_its_own_names_with_and_without_images(secateur, stripes, tmp_path):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inner = [
        keras.Input((16, 16, 3)),
        layers.Conv2D(8, 3, name="a"),
        layers.ReLU(),
        layers.Conv2D(8, 3, name="b"),
    ]
    x = keras.Input((16, 16, 3))
    y = layers.GlobalMaxPooling2D()(keras.Sequential(inner, name="base")(layers.Rescaling(1 / 255)(x)))
    keras.Model(x, layers.Dense(2)(y)).save("nested.keras")
    options = ["--data", stripes / "images", "--force", "--keep", 0.5, "--save_plan", "p.json"]
    secateur("prune", "nested.keras", *options, "-o", "one.keras")
    secateur("prune", "nested.keras", "--plan", "p.json", "-o", "two.keras")
    assert set(json.loads((tmp_path / "p.json").read_text())["sizes"]) == {"base/a", "base/b"}
    one, two = (keras.models.load_model(f"{name}.keras") for name in ("one", "two"))
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))
    np.testing.assert_allclose(one(images), two(images), atol=1e-5)


def test_a_model_at_chance_is_refused_before_it_is_trained(secateur, stripes, tmp_path):
    """With pixels of 0 to 1 its own Rescaling makes them all alike: training would ruin it."""
    options = ["--keep_macs", 0.6, "--pixels", "0..1", "--data", stripes / "images", "--finetune_epochs", 1]
    with pytest.raises(UsageError, match=r"Received: pixels=0..1\nbetter: --pixels 0..255"):
        secateur("prune", stripes / "stripes.keras", *options, "-o", "small.keras")
    assert list(tmp_path.iterdir()) == []


def test_images_without_labels_mend_a_model_and_train_none(secateur, stripes, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*(stripes / "images").rglob("*.png")][::8]:
        shutil.copy(path, flat / f"{path.parent.name}{path.name}")
    (flat / "a.png").touch()
    options = ["--keep", 0.5, "--data", "flat", "-o", "small.keras", "--skip_bad"]
    out, left = (
        secateur("prune", stripes / "stripes.keras", *options, "--report", "r.html"),
        "left out: 1 of train",
    )
    assert (
        "averages of BN re-estimated –" in out and left in out and left in (tmp_path / "r.html").read_text()
    )
    assert json.loads((tmp_path / "r.json").read_text())["skipped"] == {"train": 1}
    with pytest.raises(DataError, match="The step train needs labels"):
        secateur("prune", stripes / "stripes.keras", *options, "--finetune_epochs", 1)
    with pytest.raises(DataError, match="The step prune needs labels"):
        secateur("prune", stripes / "stripes.keras", *options, "--criterion", "taylor")


@pytest.fixture
def slogdet(tmp_path):
    """A model file that LiteRT cannot run."""
    x = keras.Input((4, 4, 3))
    y = keras.layers.Conv2D(8, 3, padding="same", name="wide")(x)
    y = keras.layers.Reshape((4, 4))(keras.layers.Conv2D(1, 1)(y))
    y = keras.layers.Reshape((1,))(keras.ops.slogdet(y)[1])
    keras.Model(x, y, name="slogdet").save(path := tmp_path / "slogdet.keras")
    return path


def test_the_model_is_there_when_an_export_fails(secateur, slogdet, tmp_path):
    with pytest.raises(UsageError, match="LiteRT"):
        secateur("prune", slogdet, "--keep", 0.5, "-o", "small.keras", "--export", "litert")
    assert keras.models.load_model(tmp_path / "small.keras").name == "slogdet"


@pytest.mark.parametrize("data", [False, True])
def test_a_model_that_litert_cannot_run_is_pruned_without_milliseconds(
    secateur, stripes, slogdet, tmp_path, data
):
    options = [slogdet, "--keep", 0.5, "-o", "small.keras", "--report", "r.html"]
    out = secateur("prune", *options, *(["--data", stripes / "images", "--force"] * data))
    assert re.search(r"^milliseconds +– +– +–$", out, re.M)
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["ms"] for row in report["costs"]] == [None, None]
    assert all(row["ms_litert"] is None for row in report["rows"]) and (tmp_path / "r.html").exists()


@pytest.mark.parametrize("words", [["--pixels", "-1..1"], ["--pixels=-1..1"]])
def test_a_range_of_pixels_may_begin_with_a_minus(words):
    options = parse(["model.keras", "--keep", "0.5", *words, "-o", "small.keras"])
    assert (options.normalisation, options.output) == ("-1..1", "small.keras")


def test_a_budget_of_milliseconds_is_measured(secateur, stripes, tmp_path):
    options = ["--keep_ms", 0.6, "--cache", "cache", "--ms_batch", 32, "--dry_run"]
    out = secateur("prune", stripes / "stripes.keras", *options)
    assert 0 < left(out, "MACs") < 1
    rows = re.findall(r"^ *([\d.]+) +([\d.]+)$", out, re.M)  # milliseconds predicted and measured
    assert len(rows) >= 3
    [cache] = (tmp_path / "cache").iterdir()
    measured = json.loads(cache.read_text())["ms"]
    assert any(key.startswith("Conv2D") and key.endswith("[16, 16, 3]") for key in measured)


def test_minutes_decide_by_themselves_for_a_budget(secateur, stripes, tmp_path, monkeypatch):
    """A second is over before the first plan is: it is made all the same, and kept as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ["--keep_ms", 0.8, "--minutes", 1 / 60, "--data", stripes / "images", "-o", "small.keras"]
    out = secateur("prune", stripes / "stripes.keras", *options, "--report", "r.html")
    report = json.loads((tmp_path / "r.json").read_text())
    assert [one["name"] for one in report["tried"]] == ["l1", "netadapt", "fpgm", "taylor"]
    assert [one["chosen"] for one in report["tried"]] == [True, False, False, False]
    assert report["clock"]["minutes"] == 1 / 60 and report["clock"]["seconds"] > 1
    small = keras.models.load_model(tmp_path / "small.keras")
    assert complexity(small).macs == report["tried"][0]["macs"] == report["costs"][1]["macs"]
    assert left(out, "MACs") < 1 and "which chose the plan" in out


def test_minutes_for_a_budget_of_bytes_write_whole_numbers_too(secateur, stripes, tmp_path):
    options = ["--keep_bytes", 0.6, "--minutes", 1 / 60, "--data", stripes / "images", "-o", "small.keras"]
    secateur("prune", stripes / "stripes.keras", *options)
    small = keras.models.load_model(tmp_path / "small.keras")
    whole = keras.models.load_model(stripes / "stripes.keras")
    assert 0.3 * whole.count_params() < small.count_params() <= 0.6 * whole.count_params()
    lite = Interpreter(model_path=str(tmp_path / "small_int8.tflite"))
    kernels = [one for one in lite.get_tensor_details() if len(one["shape"]) == 4 and "conv" in one["name"]]
    assert np.int8 in {one["dtype"] for one in kernels}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--keep_ms 0.5", "--minutes needs images"),
        ("--keep 0.5 --data photos", "--minutes and --keep"),
        ("--data photos", "Give one of --keep_macs, --keep_ms, --keep_bytes. Received: none"),
        ("--keep_macs 0.5 --data photos --criterion taylor", "--minutes and --criterion"),
        ("--keep_macs 0.5 --data photos --finetune_epochs 2", "--minutes and --finetune_epochs"),
    ],
)
def test_what_minutes_decide_is_not_given_too(words, said):
    with pytest.raises(UsageError, match=f"{said}$|^{said}"):
        parse(["model.keras", "-o", "small.keras", "--minutes", "3", *words.split()])


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
    (folder / "taken.savedmodel").mkdir()
    (folder / "taken.savedmodel" / "thesis.txt").touch()
    foreign = Subclassed()
    foreign(np.zeros((1, 3)))
    foreign.save(folder / "subclassed.keras")
    keras.saving.get_custom_objects().pop("test_prune_command>Subclassed")
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
        ("stripes", "--keep 0.5 -o {bad}/folder.keras", 5, "This is a folder"),
        ("stripes", "--keep 0.5 -o {bad}/taken.keras --export savedmodel", 5, "taken.savedmodel"),
        ("stripes", "--keep 0.5 --report a.html --save_plan a.json", 2, "takes the numbers of the report"),
    ],
)
def test_bad_input_is_one_or_two_lines_and_a_code(
    secateur, stripes, bad, tmp_path, model, options, code, said
):
    path = stripes / "stripes.keras" if model == "stripes" else bad / model
    with pytest.raises(SecateurError) as caught:
        secateur("prune", path, "-o", "small.keras", *options.format(bad=bad).split())
    error = caught.value
    assert code in EXIT_CODES and error.exit_code == code, error
    assert said in str(error) and len(str(error).splitlines()) <= 2, error
    assert list(tmp_path.iterdir()) == []


def test_the_shell_sees_a_code_and_a_line(programs, stripes, tmp_path):
    done = programs.run("pruning/__main__.py", stripes / "stripes.keras", "--dry_run", cwd=tmp_path)
    assert (done.code, done.out) == (2, "") and done.err.startswith("error: Give one of --keep, --keep_macs")
