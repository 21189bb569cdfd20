"""Programs as several workers of one run, on this machine; as a program, one worker that trains.

As a program: `python workers.py OUT.npz`; the first worker writes weights and losses, "how/what".
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a test that starts workers needs neither
    import numpy as np

    from secateur.op_utils import Workers
from tests.helpers.forked import REPO, Done, quiet_environment


def start(program: str | Path, *arguments: object, cwd: Path, count: int = 2) -> list[subprocess.Popen]:
    """Starts a program of the project `count` times, as the workers of one cluster."""
    places = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    started = []
    for index in range(count):
        task = {"cluster": {"worker": places}, "task": {"type": "worker", "index": index}}
        environment = quiet_environment() | {"TF_CONFIG": json.dumps(task), "PYTHONPATH": str(REPO)}
        command = [sys.executable, str(REPO / program), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=cwd, env=environment, **pipes))
    return started


def ended(workers: Sequence[subprocess.Popen], seconds: float = 900) -> list[Done]:
    """What a shell sees of them once all have ended; those that have not by then are killed."""
    try:
        said = [worker.communicate(timeout=seconds) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [Done(worker.returncode, *texts) for worker, texts in zip(workers, said, strict=True)]


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


def searched(workers: Workers) -> dict[str, np.ndarray]:
    """What a search has decided in each step, its scores, what all networks say, and the last one."""
    import numpy as np

    from secateur.pruning.search.ekg import Searcher
    from secateur.pruning.search.settings import SearchSettings
    from tests.helpers import toys

    images, labels = toys.images(24), np.random.default_rng(1).integers(0, 10, 24)
    settings = SearchSettings(target=0.6, batch_size=16)
    searcher = Searcher(toys.small_resnet("B"), images, labels, settings, workers=workers)
    *_, last = searcher.run()
    plans = json.dumps([interim.plan.to_json() for interim in last.history])
    scores = np.array([interim.score for interim in last.history])
    bank = searcher.logits_of(last.history[-1].plan, images, lambda x: x, 7)
    return {"plans": np.array(plans), "scores": scores, "teacher": last.teacher, "bank": bank}


def main(path: str) -> None:
    """Weights after some steps, frozen averages and live ones, the losses of more of them, and a search.

    A process alone also searches on two logical CPUs.
    """
    import numpy as np
    import tensorflow as tf

    from secateur.op_utils import Workers, make_strategy
    from tests.helpers.replicated_training import augmented_gradients, curve, synchronised, trained

    if alone := "TF_CONFIG" not in os.environ:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = make_strategy((), cluster=True)
    workers = Workers(strategy)
    found = searched(workers)
    if alone:
        replicas = Workers(tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]))
        found |= {f"replicas/{key}": value for key, value in searched(replicas).items()}
    for accum, compiled in ((1, True), (2, False)):
        state = trained(strategy, "frozen", accum, compiled).state()
        found |= {f"{accum}/{compiled}/{key}": value for key, value in state.items()}
    live = trained(strategy, "live", 4 // strategy.num_replicas_in_sync, False)
    found["mean"] = live.model.get_layer("bn").moving_mean.numpy()
    found["curve"] = curve(strategy)
    found |= {f"gradient/{key}": value for key, value in synchronised(strategy).items()}
    for accum in (1, 2):
        arrays = augmented_gradients(strategy, accum)
        found |= {f"gradient/augmented/{accum}/{key}": array for key, array in arrays.items()}
    found["agreed"] = workers.agreed(7.0 + workers.index)
    if not workers.follows:
        np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
