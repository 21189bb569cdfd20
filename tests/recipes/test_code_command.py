"""`python -m coding` as a shell sees it."""

import re

import keras
import numpy as np
import pytest

from secateur import coding, nets
from secateur.__main__ import CODING, dispatch
from secateur.coding.file.container import MAGIC
from secateur.exports import litert_runner
from secateur.pruning import compact
from secateur.runs import SecateurError, UsageError, save_snapshot

PROGRAM = "coding/__main__.py"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    path = tmp_path_factory.mktemp("snapshots") / "net.pkl"
    save_snapshot(path, nets.snapshot_of(nets.build("ResNet-20"), {"accuracy": 0.5}))
    return path


def test_a_snapshot_goes_into_a_file_and_comes_back_as_a_plain_model(programs, snapshot, tmp_path):
    done = programs.run(PROGRAM, "encode", snapshot, "-o", "net.kpz", cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"{(tmp_path / 'net.kpz').stat().st_size:,} bytes" in done.out and "every bit compared" in done.out
    done = programs.run(PROGRAM, "decode", "net.kpz", "-o", "net.keras", cwd=tmp_path)
    assert done.code == 0, done.err
    found = keras.models.load_model(tmp_path / "net.keras", compile=False)
    for mine, theirs in zip(compact(nets.load_params(None, snapshot)).weights, found.weights, strict=True):
        assert np.array_equal(mine.numpy(), theirs.numpy())
    done = programs.run(PROGRAM, "inspect", "net.kpz", cwd=tmp_path)
    assert done.code == 0 and {"entropy", "bits", "share", "fc", "planes"} <= set(done.out.split())
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


def test_ones_own_model_becomes_a_file_of_whole_numbers(programs, stripes, tmp_path):
    """Trained too: the file that is kept is the better one on the images held out."""
    words = ("--data", stripes / "images", "--finetune_epochs", 1, "--numbers", "uint8")
    model = stripes / "stripes.keras"
    done = programs.run(PROGRAM, "int8", model, "-o", "net.tflite", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    data = (tmp_path / "net.tflite").read_bytes()
    kept = re.search(r"net.tflite: (8 bits(?:, trained)?), ([\d,]+) bytes", done.out)
    assert f"{len(data):,}" == kept[2]
    rows = dict(re.findall(r"^(float32|8 bits|8 bits, trained) +[\d,]+ +([\d.]+)", done.out, re.MULTILINE))
    assert rows[kept[1]] == max(rows["8 bits"], rows["8 bits, trained"], key=float)
    paths = sorted((stripes / "images").rglob("*.png"))
    images = np.array([keras.utils.img_to_array(keras.utils.load_img(path)) for path in paths])
    found = litert_runner(data, len(images))(images).argmax(1)
    expected = np.asarray(keras.models.load_model(model)(images)).argmax(1)
    assert np.mean(found == expected) > 0.95


def test_bits_are_chosen_within_a_budget(programs, stripes, tmp_path):
    words = ("--data", stripes / "images", "--keep_bytes", 0.12)
    model = stripes / "stripes.keras"
    done = programs.run(PROGRAM, "encode", model, "-o", "net.kpz", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    bits = dict(re.findall(r"^(conv2d\w*)/kernel +(\d)$", done.out, re.MULTILINE))
    decoded = coding.decode(tmp_path / "net.kpz")
    assert set(bits) == {"conv2d", "conv2d_1"}
    for name, own in bits.items():
        values = np.unique(decoded.get_layer(name).kernel)
        assert len(values) <= 2 ** int(own)
    sizes = {"conv2d": 3 * 3 * 3 * 16, "conv2d_1": 3 * 3 * 16 * 16}
    assert sum(int(bits[name]) * size for name, size in sizes.items()) <= 0.13 * 32 * sum(sizes.values())


def test_a_snapshot_is_sent_to_the_recipe(snapshot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--recipe int8 --trained_param"):
        dispatch(["int8", str(snapshot), "-o", "net.tflite", "--data", "images"], "python -m coding")


def test_a_damaged_file_ends_the_program_with_code_4(programs, tmp_path):
    (tmp_path / "net.kpz").write_bytes(MAGIC)
    done = programs.run(PROGRAM, "inspect", "net.kpz", cwd=tmp_path)
    assert done.code == 4 and done.err.startswith("error: net.kpz is not a usable .kpz file")
