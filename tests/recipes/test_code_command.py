"""`python -m coding` as a shell sees it."""

import re
import shutil

import keras
import numpy as np
import pytest

from secateur import coding, nets
from secateur.__main__ import CODING, dispatch
from secateur.coding.file.container import MAGIC
from secateur.exports import litert_runner
from secateur.pruning import compact
from secateur.runs import SecateurError, UsageError, save_snapshot, sha256

pytestmark = pytest.mark.runs
PROGRAM = "coding/__main__.py"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    path = tmp_path_factory.mktemp("snapshots") / "net.pkl"
    save_snapshot(path, nets.snapshot_of(nets.build("ResNet-20"), {"accuracy": 0.5}))
    return path


def test_a_snapshot_goes_into_a_file_and_comes_back_as_a_plain_model(secateur, snapshot, tmp_path):
    out = secateur("encode", snapshot, "-o", "net.kpz")
    assert f"{(tmp_path / 'net.kpz').stat().st_size:,} bytes" in out and "every bit compared" in out
    secateur("decode", "net.kpz", "-o", "net.keras")
    found = keras.models.load_model(tmp_path / "net.keras", compile=False)
    for mine, theirs in zip(compact(nets.load_params(None, snapshot)).weights, found.weights, strict=True):
        assert np.array_equal(mine.numpy(), theirs.numpy())
    assert {"entropy", "bits", "share", "fc", "planes"} <= set(secateur("inspect", "net.kpz").split())
    found = coding.inspect(tmp_path / "net.kpz")
    assert found.facts["spec"]["arch"] == "ResNet-20" and found.facts["accuracy"] == 0.5


BAD = {
    "": 2,
    "incode net.keras": 2,
    "encode": 2,
    "encode missing.keras": 2,
    "encode missing.keras -o net.kpz": 4,
    "encode text.keras -o net.kpz": 4,
    "encode text.keras -o net.keras": 2,
    "encode text.keras -o no/folder.kpz": 5,
    "encode text.keras -o net.kpz --bits 17": 2,
    "decode text.keras -o net.keras": 4,
    "decode text.keras -o net.keras --bits 5": 2,
    "inspect text.keras": 4,
    "inspect text.keras -o net.kpz": 2,
    "encode text.keras -o net.kpz --keep_bytes 0.1": 2,
    "encode text.keras -o net.kpz --bits 5 --max_loss 0.1 --data images": 2,
    "encode text.keras -o net.kpz --data images": 2,
    "encode text.keras -o net.kpz --numbers int8": 2,
    "int8 text.keras -o net.tflite": 2,
    "decode text.keras -o text.keras": 2,
    "encode --bits 5 text.keras -o net.kpz": 2,
    "encode text.keras -o net.kpz --layers dens": 2,
    "encode text.keras -o net.kpz --layers all": 2,
    "int8 net.kpz -o net.tflite --data images": 4,
    "int8 text.keras -o net.kpz --data images": 2,
    "int8 text.keras -o net.tflite --data images": 4,
    "int8 text.keras -o net.tflite --data images --bits 5": 2,
}


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_used_is_said_in_two_lines(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(SecateurError) as found:
        dispatch(words.split(), "python -m coding", CODING)
    assert found.value.exit_code == BAD[words] and len(str(found.value).splitlines()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["text.keras"]


def test_ones_own_model_becomes_a_file_of_whole_numbers(secateur, stripes, tmp_path):
    """The file that is kept is the better one on the images held out."""
    words = ("--data", stripes / "images", "--finetune_epochs", 1, "--numbers", "uint8", "--balanced")
    model = "stripes.h5"  # once read as a pickle
    keras.models.load_model(stripes / "stripes.keras").save(model)
    out = secateur("int8", model, "-o", "net.tflite", *words)
    assert "balanced: each of 2 classes comes" in out
    data = (tmp_path / "net.tflite").read_bytes()
    kept = re.search(r"net.tflite: 8 bits(?:, trained)?, ([\d,]+) bytes", out)
    assert f"{len(data):,}" == kept[1]
    assert re.search(rf"^int8.tflite +{kept[1]} .* 100.00 %$", out, re.MULTILINE)
    paths = sorted((stripes / "images").rglob("*.png"))
    images = np.array([keras.utils.img_to_array(keras.utils.load_img(path)) for path in paths])
    found = litert_runner(data, len(images))(images).argmax(1)
    expected = np.asarray(keras.models.load_model(model)(images)).argmax(1)
    assert np.mean(found == expected) > 0.95
    secateur("encode", model, "-o", "net.kpz")
    secateur("decode", "net.kpz", "-o", "net.keras")
    np.testing.assert_array_equal(keras.models.load_model("net.keras")(images).numpy().argmax(1), expected)


def test_a_model_that_is_no_classifier_is_calibrated_with_images_alone(secateur, stripes, tmp_path):
    """A folder without sub-folders: two outputs, of which nobody has said the loss."""
    (tmp_path / "flat").mkdir()
    for i, path in enumerate([*(stripes / "images").rglob("*.png")][::8]):
        shutil.copy(path, tmp_path / "flat" / f"{i}.png")
    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3))
    y = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    outputs = [keras.layers.Conv2D(2, 1)(y), keras.layers.Dense(1)(keras.layers.GlobalMaxPooling2D()(y))]
    model = keras.Model(x, outputs)
    model.save("two.keras")
    out = secateur("int8", "two.keras", "-o", "two.tflite", "--data", "flat", "--pixels", "0..1")
    assert re.search(r"^int8.tflite .* –$", out, re.MULTILINE)
    assert 0 < float(re.search(r"hold-out: outputs (\S+) % of their range", out)[1]) < 2
    paths = sorted((tmp_path / "flat").iterdir())[:2]  # of those that it was calibrated with
    images = np.array([keras.utils.img_to_array(keras.utils.load_img(path)) for path in paths]) / 255
    found = litert_runner((tmp_path / "two.tflite").read_bytes(), 2)(images.astype("float32"))
    for mine, theirs in zip(sorted(found, key=np.ndim), sorted(model(images), key=np.ndim), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.1 * np.abs(theirs).max())


def test_values_are_chosen_within_a_budget(secateur, stripes, tmp_path):
    words = ("--data", stripes / "images", "--keep_bytes", 0.12)
    out = secateur("encode", stripes / "stripes.keras", "-o", "net.kpz", *words)
    kept = dict(re.findall(r"^(conv2d\w*)/kernel .* (\d+) +\S+ +\S+$", out, re.MULTILINE))
    decoded = coding.decode(tmp_path / "net.kpz")
    assert set(kept) == {"conv2d", "conv2d_1"} and sha256(tmp_path / "net.kpz") in out
    spent = 0.0
    for name, count in kept.items():
        kernel = decoded.get_layer(name).kernel.numpy()
        counts = np.unique(kernel, return_counts=True)[1]
        assert len(np.unique(kernel[kernel != 0])) == int(count)
        spent += (counts * np.log2(kernel.size / counts)).sum() / 8 + 4 * int(count)
    assert 0.08 < spent / (4 * (3 * 3 * 3 * 16 + 3 * 3 * 16 * 16)) <= 0.12


def test_values_of_a_snapshot_are_chosen_too(secateur, stripes, tmp_path):
    """One network of ours, vectors rounded in the same command."""
    net = nets.build("ResNet-8", num_classes=2, input_shape=(16, 16, 3))
    save_snapshot(tmp_path / "net.pkl", nets.snapshot_of(net, {}))
    words = ("--keep_bytes", 0.06, "--vector_bits", 8, "--data", stripes / "images", "--pixels", "0..1")
    secateur("encode", "net.pkl", "-o", "net.kpz", *words, "--force")
    found = coding.decode(tmp_path / "net.kpz")
    kernels = [v.numpy() for v in found.weights if len(v.shape) == 4]
    assert sum(len(np.unique(kernel)) for kernel in kernels) < sum(kernel.size for kernel in kernels) / 50
    assert not any(v.numpy().any() for v in found.weights if v.name == "moving_mean")
    assert (tmp_path / "net.kpz").stat().st_size < 0.1 * sum(v.nbytes for v in kernels)


def test_what_is_not_in_kernels_is_rounded(secateur, snapshot, tmp_path):
    secateur("encode", snapshot, "-o", "net.kpz", "--bits", 4)
    secateur("encode", snapshot, "-o", "round.kpz", "--bits", 4, "--vector_bits", 8)
    whole, small = (coding.inspect(tmp_path / name) for name in ("net.kpz", "round.kpz"))
    assert whole.arrays == small.arrays and small.size < whole.size - 500
    one, other = (coding.decode(tmp_path / name) for name in ("net.kpz", "round.kpz"))
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3))
    expected = one(images).numpy()
    np.testing.assert_allclose(other(images), expected, atol=0.1 * np.abs(expected).max())


def test_a_snapshot_is_sent_to_the_recipe(snapshot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--recipe int8 --trained_param"):
        dispatch(["int8", str(snapshot), "-o", "net.tflite", "--data", "images"], "python -m coding")


def test_a_damaged_file_ends_the_program_with_code_4(programs, tmp_path):
    (tmp_path / "net.kpz").write_bytes(MAGIC)
    done = programs.run(PROGRAM, "inspect", "net.kpz", cwd=tmp_path)
    assert done.code == 4 and done.err.startswith("error: net.kpz is not a usable .kpz file")
