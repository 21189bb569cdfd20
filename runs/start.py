"""Start-up without noise: TensorFlow's C++ logs before any of its log levels is in force.

Importing this file does not import TensorFlow: a child of `multiprocessing` begins with `start_worker`.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what native code writes to stderr; shows it after all when the block fails."""
    if sys.stderr is None:  # a program without one, into which this is imported
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def prefer_onednn() -> None:
    """Has TensorFlow compute with oneDNN on any x86, where the environment does not say otherwise.

    By itself it does so only on CPUs with instructions for neural networks, such as AVX512-VNNI. To be called
    before TensorFlow is imported.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def start_tensorflow() -> None:
    """Imports TensorFlow and finds its devices, silently."""
    # Of several workers TensorFlow would say at length that one has gone, which is an error of ours, too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    prefer_onednn()
    with quiet_stderr():
        import absl.logging
        import tensorflow as tf

        tf.config.list_physical_devices()
    # The Python side: advice on retracing (each network here is traced once), the converter's arguments.
    tf.get_logger().setLevel("ERROR")
    absl.logging.set_verbosity(absl.logging.ERROR)


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """The same for the Python side within another program, which has its own level outside of the block."""
    import tensorflow as tf

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


# --- processes of `multiprocessing` -------------------------------------------------------------------------


def end_with_parent() -> None:
    """Leaves Ctrl-C to the parent process, and ends this one as soon as the parent is gone.

    A parent that is killed tells nobody: the worker of a pool would wait for its next task for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()


def start_worker() -> None:
    """`end_with_parent`, then TensorFlow is started silently."""
    end_with_parent()
    start_tensorflow()


def _watch() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # sys.exit would end this thread alone
