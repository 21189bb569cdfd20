"""Start-up without noise: TensorFlow's C++ logs before any of its log levels is in force."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what native code writes to stderr; shows it after all when the block fails."""
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


def start_tensorflow() -> None:
    """Imports TensorFlow and finds its devices, silently."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
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
