"""A worker that computes alone hears that another one has gone."""

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from secateur.runs.errors import UsageError, cli
from secateur.runs.peers import meet, watched


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


def free_places(count: int) -> list[str]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    places = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return places


def test_workers_meet_whoever_comes_first(capsys):
    """Who has met all leaves; the others then find what listens in its place: in a run TensorFlow."""
    places = free_places(3)

    def come(i: int) -> socket.socket:
        time.sleep(0.3 * i)
        meet(places[i], [place for place in places if place != places[i]])
        return socket.create_server(("127.0.0.1", int(places[i].rpartition(":")[2])))

    with ThreadPoolExecutor() as pool:
        for server in list(pool.map(come, range(3))):
            server.close()
    assert f"waiting for {places[1]}, {places[2]}" in capsys.readouterr().out


def test_a_worker_that_waits_alone_hears_signals_and_says_for_whom():
    own, other = free_places(2)
    program = "import sys; from secateur.runs import cli; from secateur.runs.peers import meet\n"
    program += f"sys.exit(cli(lambda: meet({own!r}, [{other!r}])))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"waiting for {other}\n"
        process.terminate()
        assert process.wait(20) == 143


def test_a_place_that_another_process_has_is_refused():
    with socket.create_server(("", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"own place in TF_CONFIG .*Received: {place}"):
            meet(place, [])
