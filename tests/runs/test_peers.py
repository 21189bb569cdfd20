"""A worker that computes alone hears that another one has gone."""

import socket
import time

import pytest

from secateur.runs.errors import cli
from secateur.runs.peers import watched


def test_a_closed_port_ends_what_the_main_thread_does(capsys):
    server = socket.create_server(("127.0.0.1", 0))
    place = f"127.0.0.1:{server.getsockname()[1]}"

    def main() -> None:
        with watched([place], pause=0.02):
            time.sleep(0.3)
            server.close()
            time.sleep(60)

    start = time.monotonic()
    assert cli(main) == 8 and time.monotonic() - start < 30
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: another worker of this run has gone (nobody answers at {place})"
    assert len(lines) == 2


def test_nothing_is_said_of_workers_that_live():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        watched([f"127.0.0.1:{server.getsockname()[1]}"], 0.02),
    ):
        time.sleep(0.3)


def test_an_error_of_ones_own_passes():
    with pytest.raises(KeyError), watched([], 0.02):
        raise KeyError
