"""What a process of `multiprocessing` does before its first task. Nothing here imports TensorFlow."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from secateur.runs.quiet import start_tensorflow


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
