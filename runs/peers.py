"""Whether the other workers of a run live: who computes alone would hear of it only when it needs them."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from secateur.runs.errors import Stopped, UsageError, WorkerError

REMEDY = "start the same command on all workers again: it goes on from the last checkpoint"
PAUSE = 10.0  # seconds between two looks
LOOKS = 2  # in a row that find a port closed


def gone(reason: str) -> WorkerError:
    """What is said of a worker that has gone."""
    return WorkerError(f"another worker of this run has gone ({reason})\n{REMEDY}")


def meet(own: str, others: Sequence[str]) -> None:
    """Returns when all others have come; until then it answers them, and says for whom it waits.

    TensorFlow waits in C++, where no signal reaches Python. Places are "host:port".
    Raises `UsageError` where another process has the own port.
    """
    missing, shown = list(others), None
    try:
        server = socket.create_server(("", int(own.rpartition(":")[2])))
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"This worker cannot be reached at its own place in TF_CONFIG ({error}). Received: {own}"
        ) from None
    with server:
        while missing := [place for place in missing if not _answers(place, 1.0)]:
            if missing != shown:
                print(f"waiting for {', '.join(missing)}", flush=True)
            shown = missing
            time.sleep(0.2)


@contextmanager
def watched(places: Sequence[str], pause: float = PAUSE) -> Iterator[None]:
    """Raises `WorkerError` in the block, of the main thread of a program, when a worker has gone.

    `places` are the other workers' "host:port". It needs `errors.cli`, which makes SIGTERM an exception.
    """
    ended, lost = threading.Event(), []
    thread = threading.Thread(target=_watch, args=(places, pause, ended, lost), daemon=True)
    thread.start()
    try:
        yield
    except Stopped:
        if not lost:
            raise
        raise gone(f"nobody answers at {lost[0]}") from None
    finally:
        ended.set()


def take_sigterm_back() -> None:
    """SIGTERM does again what Python knows of it: TensorFlow puts a handler of C in its place."""
    known = signal.getsignal(signal.SIGTERM)
    if known is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, known)


def _watch(places: Sequence[str], pause: float, ended: threading.Event, lost: list[str]) -> None:
    closed = dict.fromkeys(places, 0)
    while places and not ended.wait(pause):
        for place in places:
            closed[place] = 0 if _answers(place, pause) else closed[place] + 1
            if closed[place] == LOOKS and not ended.is_set():
                lost.append(place)
                if callable(signal.getsignal(signal.SIGTERM)):  # by default it would end the process silently
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
                return


def _answers(place: str, seconds: float) -> bool:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except (OSError, ValueError, OverflowError):  # or what is no port
        return False
    return True
