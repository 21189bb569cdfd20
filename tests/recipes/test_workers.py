"""Two processes as the workers of one run: what they train, and what happens when one of them is killed."""

import signal
import time

import numpy as np
import pytest

from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.run import check_alike
from secateur.runs import RunFolderError, read_jsonl, sha256
from tests.helpers import workers
from tests.helpers.replicated_training import network

EKG = (
    "--arch ResNet-8 --dataset DIGITS --target_rate 0.6 --batch_size 32 --train_images 320 "
    "--baseline_epoch 1 --train_epoch 3 --time_seconds 0.1"
)

SEARCHED = ("plans", "scores", "teacher", "bank")


@pytest.fixture(scope="module")
def two_and_one(programs, tmp_path_factory) -> list[dict[str, np.ndarray]]:
    """What two workers of one device find, and what one process does."""
    folder = tmp_path_factory.mktemp("workers")
    for done in workers.ended(workers.start("tests/helpers/workers.py", "two.npz", cwd=folder)):
        assert done.code == 0, done.err[-2000:]
    done = programs.run("tests/helpers/workers.py", "one.npz", cwd=folder)
    assert done.code == 0, done.err[-2000:]
    return [dict(np.load(folder / name)) for name in ("two.npz", "one.npz")]


@pytest.mark.runs
def test_two_workers_train_what_one_does(two_and_one):
    """Loss, decay, micro-batches, metrics, and with --sync_bn BatchNorm, are those of the whole batch."""
    two, one = two_and_one
    weights = [key for key in one if key[0].isdigit()]
    before = network("frozen").get_layer("conv").kernel.numpy()
    assert np.abs(one["1/True/0000"] - before).max() > 1e-3
    for key in weights:
        np.testing.assert_allclose(two[key], one[key], atol=4e-6, rtol=0, err_msg=key)
    for key in (key for key in one if key.startswith("gradient/")):
        np.testing.assert_allclose(two[key], one[key], atol=1e-6, rtol=0, err_msg=key)
    np.testing.assert_allclose(two["mean"], one["mean"], atol=4e-6)
    np.testing.assert_allclose(two["curve"], one["curve"], atol=1e-4)
    assert one["curve"][-1] < one["curve"][0] and two["agreed"] == 7.0


@pytest.mark.runs
def test_a_search_decides_alike_on_one_device_on_two_and_in_two_workers(two_and_one):
    two, one = two_and_one
    assert len(one["scores"]) > 4
    for spread in (two, {key: one[f"replicas/{key}"] for key in SEARCHED}):
        assert spread["plans"] == one["plans"]
        np.testing.assert_allclose(spread["scores"], one["scores"], rtol=1e-6)
        np.testing.assert_allclose(spread["teacher"], one["teacher"], atol=1e-5)
        np.testing.assert_allclose(spread["bank"], one["bank"], atol=1e-5)


def test_a_worker_that_others_would_wait_for_says_what_it_was_given():
    """A step may be left out by all or by none: `--nan` is asked in each."""

    class First:
        def agreed(self, number: float) -> float:
            self.said = number
            return number

    class Other(First):
        def agreed(self, number: float) -> float:
            return first.said

    first, other = First(), Other()
    check_alike(first, RunOptions(train_path="run", gpu_id=[0]))
    check_alike(other, RunOptions(train_path="elsewhere"))
    with pytest.raises(RunFolderError, match="give all the same. Received: nan='skip', compile=None"):
        check_alike(other, RunOptions(train_path="run", nan="skip"))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_run_whose_worker_is_killed_goes_on_to_the_same_bits(tmp_path, killed):
    """The others end in one line within a minute; the same command goes on behind the last epoch."""
    words = [*EKG.split(), "--train_path"]
    whole = workers.ended(workers.start("train_cifar.py", *words, tmp_path / "whole", cwd=tmp_path))
    assert [done.code for done in whole] == [0, 0], whole
    begun = workers.start("train_cifar.py", *words, tmp_path / "broken", cwd=tmp_path)
    while not trained(tmp_path / "broken" / "metrics.jsonl"):
        assert begun[0].poll() is None
        time.sleep(0.05)
    begun[killed].send_signal(signal.SIGKILL)
    start = time.monotonic()
    others = workers.ended(begun)
    assert time.monotonic() - start < 60
    assert others[killed].code == -signal.SIGKILL and others[1 - killed].code == 8
    said = [line for line in others[1 - killed].err.splitlines() if "error" in line]
    assert len(said) == 1 and said[0].startswith("error: another worker of this run has gone")
    again = workers.ended(workers.start("train_cifar.py", *words, tmp_path / "broken", cwd=tmp_path))
    assert [done.code for done in again] == [0, 0], again
    assert "fine_tune: continuing after epoch" in again[0].out + again[0].err
    names = ("snap_baseline.pkl", "slimmed_param.pkl", "bank.npy", "trained_param.pkl")
    for name in names:
        assert sha256(tmp_path / "broken" / name) == sha256(tmp_path / "whole" / name), name


def trained(log) -> bool:
    return any(row["phase"] == "fine_tune" for row in read_jsonl(log, quiet=True))
