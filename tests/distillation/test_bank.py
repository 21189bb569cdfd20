"""Which interim networks teach, and their logits on disk."""

import io
import zipfile

import numpy as np
import pytest

from secateur.distillation import MemoryBank, bank_into, choose_teachers, write_bank
from secateur.runs import DataError, UsageError
from secateur.runs.parts import part_file

# --- choice ------------------------------------------------------------------------------------------------


def test_teachers_are_those_nearest_to_the_five_targets():
    """min 1, max 2: targets 1, 1.2, 1.4, 1.6, 1.8. The last target leaves the worst network out."""
    losses = [1.0, 1.05, 1.19, 1.22, 1.45, 1.5, 1.64, 1.9, 2.0]
    assert [losses[i] for i in choose_teachers(losses)] == [1.0, 1.19, 1.45, 1.64, 1.9]


def test_a_network_is_chosen_once():
    """Targets 0, .2, .4, .6, .8 of losses that crowd at both ends: the nearest that is still free."""
    losses = [0.9, 0.0, 1.0, 0.01, 0.02, 0.95]
    assert [losses[i] for i in choose_teachers(losses)] == [0.0, 0.02, 0.01, 0.9, 0.95]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_all_losses_alike_take_the_first_ones(count):
    assert choose_teachers([0.3] * 7, count) == list(range(count))


@pytest.mark.parametrize("losses", [[0.5], [0.5, 0.2], [0.5, 0.2, 0.9, 0.1]])
def test_fewer_networks_than_asked_for_all_teach_the_best_first(losses):
    chosen = choose_teachers(losses, 5)
    assert sorted(chosen) == list(range(len(losses)))
    assert losses[chosen[0]] == min(losses)


def test_by_hand_over_random_histories():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        losses, count = rng.gamma(2.0, size=int(rng.integers(1, 40))).tolist(), int(rng.integers(1, 8))
        free, expected = dict(enumerate(losses)), []
        for j in range(count):
            target = min(losses) + (max(losses) - min(losses)) * j / count
            if free:
                expected.append(min(free, key=lambda i: abs(free[i] - target)))
                del free[expected[-1]]
        assert choose_teachers(losses, count) == expected


# --- the file ----------------------------------------------------------------------------------------------

IDS = np.array([40, 3, 17, 0, 21])


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 10, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path, logits):
    np.save(tmp_path / "bank.npy", logits)
    return tmp_path / "bank.npy"


def test_logits_follow_the_ids_whatever_their_order(path, logits):
    bank = MemoryBank.open(path, IDS)
    order = np.array([2, 2, 0, 4, 1, 3])
    np.testing.assert_array_equal(bank(IDS[order]), logits[order])


@pytest.mark.parametrize("missing", [1, 39, 41, 1000])
def test_an_image_without_a_row_is_not_given_another_ones(path, missing):
    with pytest.raises(IndexError):
        MemoryBank.open(path, IDS)(np.array([3, missing]))


def damaged(kind: str, good: bytes, logits: np.ndarray) -> bytes | None:
    def saved(array, **options) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array, **options)
        return buffer.getvalue()

    def zipped() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("logits.npy", good)
        return buffer.getvalue()

    return {
        "missing": lambda: None,
        "empty": lambda: b"",
        "text": lambda: b"accuracy 93.82 %\n" * 9,
        "half a header": lambda: good[:40],
        "truncated": lambda: good[:-100],
        "npz": zipped,
        "pickle": lambda: saved(np.array([{"a": 1}], dtype=object), allow_pickle=True),
        "of other images": lambda: saved(logits[:4]),
        "flat": lambda: saved(logits[:, :, 0]),
        "float64": lambda: saved(logits.astype(np.float64)),
        "negative shape": lambda: good.replace(b"(5, 10, 3)", b"(5,-10, 3)"),
        "huge shape": lambda: good.replace(b"(5, 10, 3)", b"(5,9**9,3)"),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    ["missing", "empty", "text", "half a header", "truncated", "npz", "pickle", "of other images", "flat"]
    + ["float64", "negative shape", "huge shape"],
)
def test_a_file_that_is_no_bank_of_these_images_is_refused(path, logits, kind):
    content = damaged(kind, path.read_bytes(), logits)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        MemoryBank.open(path, IDS)
    message = str(caught.value)
    assert str(path) in message and "Delete it" in message and len(message.splitlines()) <= 2


def test_any_change_of_the_header_is_read_or_refused(path, logits):
    """A flipped byte never ends in an exception of another kind."""
    good, refused = path.read_bytes(), 0
    for place in range(128):
        for value in (0, good[place] ^ 1, 0xFF):
            path.write_bytes(good[:place] + bytes([value]) + good[place + 1 :])
            try:
                assert MemoryBank.open(path, IDS)(IDS[:2]).ndim == 3
            except DataError:
                refused += 1
    assert refused > 150


# --- written ------------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 4, 4, 3), np.uint8)


def says(k: int):
    """A teacher of three classes that knows one image from another."""
    return lambda images: images.astype(np.float32).reshape(len(images), -1)[:, k : k + 3] / 7


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 2.0**-11)])
def test_what_is_written_is_found_by_id_in_any_order(tmp_path, dtype, tolerance):
    """Also when the training set comes in another order; rounding to float16 is at most half a unit."""
    expected = np.stack([says(k)(IMAGES) for k in range(4)], -1)
    write_bank(tmp_path / "bank.npy", [says(k) for k in range(4)], IMAGES, IDS, dtype)
    for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]):
        bank = MemoryBank.open(tmp_path / "bank.npy", IDS[order])
        assert isinstance(bank.logits, np.memmap) and bank.logits.dtype == dtype
        found = bank(IDS[[4, 4, 2]])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[[4, 4, 2]], rtol=tolerance, atol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_pieces_make_the_same_file(tmp_path, monkeypatch, batch_size):
    """Of batches by their statistics too: none is cut in two, the last one is filled in its own piece."""

    def of_batches(images):
        starts = [max(0, min(i, len(images) - batch_size)) for i in range(0, len(images), batch_size)]
        parts = [says(0)(images[start : start + batch_size]) for start in starts]
        made = [part - part.mean(0) for part in parts]
        return np.concatenate(
            [m[i - s :] for m, i, s in zip(made, range(0, len(images), batch_size), starts, strict=True)]
        )

    whole = np.stack([says(1)(IMAGES), of_batches(IMAGES)], -1)
    monkeypatch.setattr("secateur.distillation.bank.PIECE", 2)
    notes = []
    with part_file(tmp_path / "bank.npy", None, notes.append) as file:
        bank_into(file, [says(1), of_batches], IMAGES, IDS, batch_size=batch_size)
    np.save(tmp_path / "whole.npy", whole)
    data, expected = ((tmp_path / name).read_bytes() for name in ("bank.npy", "whole.npy"))
    assert data[: len(expected)] == expected
    np.testing.assert_array_equal(MemoryBank.open(tmp_path / "bank.npy", IDS)(IDS), whole)
    for noted in notes:  # a run that was killed before the next one, in the middle of a write
        (tmp_path / "again.npy").write_bytes(data[: noted["bytes"]] + b"half")
        with part_file(tmp_path / "again.npy", noted, notes.append) as file:
            bank_into(file, [says(1), of_batches], IMAGES, IDS, batch_size=batch_size)
        assert (tmp_path / "again.npy").read_bytes() == data


def test_a_teacher_says_nothing_of_an_image_twice(tmp_path, monkeypatch, capfd):
    """Behind the last whole piece the next one is asked for; a file that was changed begins anew."""
    monkeypatch.setattr("secateur.distillation.bank.PIECE", 2)
    notes, asked = [], []

    def teacher(images):
        asked.append(len(images))
        return says(0)(images)

    path, changed = tmp_path / "bank.npy", tmp_path / "changed.npy"
    with part_file(path, None, notes.append) as file:
        bank_into(file, [teacher], IMAGES, IDS, "float16")
    whole = path.read_bytes()
    assert asked == [2, 2, 1] and [noted["done"] for noted in notes] == [2, 4, 5]
    changed.write_bytes(whole[:150] + b"?" + whole[151:])
    for file_, left in ((path, [1]), (changed, [2, 2, 1])):
        asked.clear()
        with part_file(file_, notes[1], notes.append) as file:
            bank_into(file, [teacher], IMAGES, IDS, "float16")
        assert asked == left and file_.read_bytes() == whole
    assert "changed.npy is gone, damaged or changed; it is begun anew" in capfd.readouterr().err


def test_of_a_bank_whose_writing_fails_there_stays_what_was_noted(tmp_path, monkeypatch):
    """On a full disk the rest is in the way; of a first piece nothing stays."""
    monkeypatch.setattr("secateur.distillation.bank.PIECE", 2)
    path = tmp_path / "bank.npy"
    for last in (0, 2):
        notes = []

        def note(facts, last=last, notes=notes):
            if facts["done"] > last:
                raise OSError(28, "No space left on device")
            notes.append(facts)

        with pytest.raises(OSError, match="No space"), part_file(path, None, note) as file:
            bank_into(file, [says(0)], IMAGES, IDS)
        assert [noted["bytes"] for noted in notes] == ([path.stat().st_size] if path.exists() else [])
        assert path.exists() == (last > 0)


def test_several_teachers_at_once_stand_in_their_place(tmp_path):
    both = [says(0), lambda images: np.stack([says(1)(images), says(2)(images)], -1)]
    write_bank(tmp_path / "bank.npy", both, IMAGES, IDS)
    expected = np.stack([says(k)(IMAGES) for k in range(3)], -1)
    np.testing.assert_array_equal(MemoryBank.open(tmp_path / "bank.npy", IDS)(IDS), expected)


def test_the_file_is_an_npy_of_the_published_form(tmp_path):
    write_bank(tmp_path / "bank.npy", [says(0), says(1)], IMAGES, IDS)
    np.testing.assert_array_equal(np.load(tmp_path / "bank.npy")[..., 1], says(1)(IMAGES))


def test_a_bank_of_other_images_is_refused_though_as_many(tmp_path):
    write_bank(tmp_path / "bank.npy", [says(0)], IMAGES, IDS)
    with pytest.raises(DataError, match="does not belong to this training set of 5 images"):
        MemoryBank.open(tmp_path / "bank.npy", IDS + 1)


@pytest.mark.parametrize("kept", [0.999, 0.97, 0.8])
def test_a_bank_cut_short_is_refused(tmp_path, kept):
    path = tmp_path / "bank.npy"
    write_bank(path, [says(0)], IMAGES, IDS)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataError, match="Delete it"):
        MemoryBank.open(path, IDS)


def test_a_teacher_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "bank.npy"
    write_bank(path, [says(0)], IMAGES, IDS)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_bank(path, [says(1), lambda images: 1 // 0], IMAGES, IDS)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_wrong_banks_say_what_is_right(tmp_path):
    path = tmp_path / "bank.npy"
    for ids, dtype, error, message in (
        (IDS, "float61", UsageError, "dtype='float61'.*'float16'"),
        (IDS[:4], "float32", UsageError, "5 images.*4 ids"),
        (IDS // 10, "float32", UsageError, "id of its own"),
        (IDS, "float16", DataError, "float16. Received: up to .*\nStore them as float32"),
    ):
        with pytest.raises(error, match=message):
            write_bank(path, [lambda images: 1e5 * (1 + says(0)(images))], IMAGES, ids, dtype)
    assert not path.exists()
