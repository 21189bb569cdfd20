"""Frozen functions are timed in a process of their own: it has its threads, reads our nets, ends in time."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from secateur.exports.timing import Setup
from secateur.nets.layers import MaskedConv2D
from secateur.recipes.engine.timing import setup_for
from secateur.runs import UsageError

pytestmark = pytest.mark.runs
REPO = Path(__file__).resolve().parents[2]
PARENT = """
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from secateur.runs.start import end_with_parent
pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent)
child = pool.submit(os.getpid).result()
os.kill(child, signal.SIGINT)
print(pool.submit(os.getpid).result() == child != os.getpid(), flush=True)
time.sleep(600)
"""


@keras.saving.register_keras_serializable("test_prune_timing")
class Here(keras.layers.Layer):
    """A layer that no other process knows."""

    def call(self, x):
        return x + 1.0


def masked() -> keras.Model:
    """A net of the project's own layers."""
    x = keras.Input((8, 8, 3))
    return keras.Model(x, keras.layers.GlobalAveragePooling2D()(MaskedConv2D(4)(x)), name="masked")


def foreign() -> keras.Model:
    x = keras.Input((3,))
    return keras.Model(x, Here()(x))


@pytest.fixture(scope="module")
def others():
    """Processes that other tests have started."""
    return multiprocessing.active_children()


@pytest.fixture(scope="module")
def apart(others):
    """TensorFlow has computed something here, so that this process keeps its number of threads."""
    tf.add(1, 1)
    return setup_for("frozen", 1, 2)


def test_a_frozen_function_has_its_threads_and_training_keeps_all(apart):
    threads = tf.config.threading.get_intra_op_parallelism_threads
    mine = threads()
    with pytest.raises(UsageError, match="TensorFlow is running already"):
        Setup("frozen", 1, 2).milliseconds({"a": masked()}, 0.01)
    found = apart.milliseconds({"a": masked(), "b": masked()}, 0.01)
    assert found.keys() == {"a", "b"} and min(found.values()) > 0
    assert threads() == mine != 1 and str(apart) == str(Setup("frozen", 1, 2))


def test_a_model_that_only_this_process_knows_is_refused(apart):
    with pytest.raises(UsageError, match="cannot read this one .*Received: frozen, 1.*\n.*--threads 0"):
        apart.milliseconds({"": foreign()}, 0.01)
    assert setup_for("frozen", 0, 2).milliseconds({"": foreign()}, 0.01)[""] > 0  # the remedy


def test_a_process_that_dies_is_one_error_and_no_traceback(apart, others):
    assert apart.milliseconds({"": masked()}, 0.01)[""] > 0
    [child] = set(multiprocessing.active_children()) - {*others}
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(UsageError, match="has died.*Received: frozen, 1 thread, batch 2\n.*--threads 0"):
        apart.milliseconds({"": masked()}, 0.01)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_leaves_ctrl_c_to_its_parent_and_ends_with_it(end):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "True\n"
    parent.send_signal(end)
    parent.communicate(timeout=120)  # until nobody holds the pipe any more, which the child inherited
    assert parent.returncode == -end


@pytest.mark.parametrize(("backend", "threads"), [("litert", 1), ("litert", 0), ("frozen", 0)])
def test_other_setups_need_no_process_of_their_own(backend, threads):
    assert type(setup_for(backend, threads, 1)) is Setup
