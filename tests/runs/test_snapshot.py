"""Snapshots come back bit for bit, published pickles load, and every message says what to do."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secateur.runs import Snapshot, SnapshotError, load_snapshot, save_snapshot, sha256

DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", "?", ">f4", ">i2"])
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: not name.startswith("__"))
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FACTS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)


def bits(arrays):
    return [
        (
            name,
            array.shape,
            array.dtype.newbyteorder("="),
            array.astype(array.dtype.newbyteorder("<")).tobytes(),
        )
        for name, array in arrays.items()
    ]


@settings(max_examples=200, deadline=None)
@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=4), spec=st.none() | FACTS, facts=FACTS)
def test_round_trip_is_bit_exact(arrays, spec, facts, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round_trip.pkl"
    digest = save_snapshot(path, Snapshot(arrays, spec, None, facts))
    back = load_snapshot(path)
    assert bits(back.arrays) == bits(arrays)
    assert (back.spec, back.plan, back.facts) == (spec, None, facts)
    assert digest == sha256(path)
    with open(path, "rb") as file:
        plain = pickle.load(file)
    assert bits({name: plain[name] for name in arrays}) == bits(arrays)
    assert json.loads(plain["__secateur__"])["format"] == "secateur/1"


def test_equal_snapshots_give_equal_bytes(tmp_path):
    """Also when one array is stored column by column and another is a slice or big-endian."""
    values = np.arange(12, dtype="f4").reshape(3, 4)
    looks = [values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2], values.astype(">f4")]
    digests = {save_snapshot(tmp_path / "net.pkl", Snapshot({"a": look})) for look in looks}
    assert len(digests) == 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_other_projects_load(protocol, tmp_path):
    values = np.arange(24, dtype="f4").reshape(2, 3, 4)
    arrays = {
        "c": values,
        "fortran": np.asfortranarray(values),
        "transposed": values.transpose(1, 0, 2),
        "big": values.astype(">f8"),
        "half": values.astype("f2"),
        "number": np.float32(3),
        "zero": np.array(1.5),
        "empty": np.zeros((0, 3), "f4"),
        "steps": np.array([7], "i8"),
        "flag": np.array([True, False]),
    }
    path = tmp_path / "foreign.pkl"
    path.write_bytes(
        pickle.dumps({"__header__": b"MATLAB", "__version__": "1.0", "__globals__": [], **arrays}, protocol)
    )
    snapshot = load_snapshot(path)
    assert bits(snapshot.arrays) == bits({name: np.asarray(value) for name, value in arrays.items()})
    assert (snapshot.spec, snapshot.plan, snapshot.facts) == (None, None, {})


def test_published_pickle_holds_860026_scalars(data_dir):
    path = data_dir / "weights" / "ekg_res56_cifar10.pkl"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the test data")
    arrays = load_snapshot(path).arrays
    assert sum(array.size for array in arrays.values()) == 860_026
    assert len(arrays) == 287 and all(array.dtype == np.float32 for array in arrays.values())
    with open(path, "rb") as file:  # the published file, so plain pickle is safe here
        plain = pickle.load(file)
    assert bits(arrays) == bits({name: plain[name] for name in arrays})


def test_loaded_arrays_cannot_be_changed_by_accident(tmp_path):
    save_snapshot(tmp_path / "net.pkl", Snapshot({"a": np.ones(3)}))
    with pytest.raises(ValueError, match="read-only"):
        load_snapshot(tmp_path / "net.pkl").arrays["a"][0] = 2


@pytest.mark.parametrize(
    "bad",
    [
        np.array(["text"]),
        np.array([object()]),
        np.array([1j]),
        np.zeros(2, "f4,i4"),
        np.array(["2024-01-01"], "M8[D]"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_only_numbers_can_be_saved(bad, tmp_path):
    with pytest.raises(SnapshotError, match=r"conv: .*cast it to float32\. Received: dtype="):
        save_snapshot(tmp_path / "net.pkl", Snapshot({"conv": bad}))
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_refused_with_a_remedy(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(SnapshotError, match="bfloat16"):
        save_snapshot(tmp_path / "net.pkl", Snapshot({"conv": np.ones(2, ml_dtypes.bfloat16)}))


def test_reserved_names_are_refused(tmp_path):
    with pytest.raises(SnapshotError, match="__secateur__"):
        save_snapshot(tmp_path / "net.pkl", Snapshot({"__secateur__": np.ones(2)}))


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    for path in (tmp_path / "absent.pkl", tmp_path, tmp_path / "pipe", tmp_path / "link", "/dev/zero"):
        with pytest.raises(SnapshotError, match=str(path)):
            load_snapshot(path)


def test_a_file_of_3_gib_is_refused_unread(tmp_path):
    with open(tmp_path / "net.pkl", "wb") as file:
        file.truncate(3 * 2**30)  # sparse: takes no space
    with pytest.raises(SnapshotError, match="more than 2 GiB"):
        load_snapshot(tmp_path / "net.pkl")


def test_a_cut_file_says_so(tmp_path):
    path = tmp_path / "net.pkl"
    save_snapshot(path, Snapshot({"a": np.ones(30)}))
    path.write_bytes(path.read_bytes()[:-72])  # a whole pickle, without the digest
    with pytest.raises(SnapshotError, match="digest is missing"):
        load_snapshot(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SnapshotError, match="truncated or not a pickle"):
        load_snapshot(path)


def test_a_keras_model_is_called_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "compact.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(SnapshotError, match=r"such as a \.keras model; the snapshot is the \.pkl beside it"):
        load_snapshot(tmp_path / "compact.keras")
