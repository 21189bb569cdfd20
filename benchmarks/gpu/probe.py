"""What the device can do at most, and how near the exported steps come to it; a part of `benchmarks.gpu.run`.

Notes of the session get one "ceilings" and a "probe" for each program of the export and each precision. What
`with_precision` asks for says nothing to a program that computes in bfloat16: it is probed once.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

from benchmarks.gpu.course import Device, Loop
from benchmarks.gpu.folder import Folder

STEPS = 64
"""Steps of a probe: enough to time, and all programs are done within two minutes."""
CALLS, PASSES = 10, 3
SIDE, SIDE_ON_CPU = 8192, 512
"""Rows of the matrices behind the ceilings."""
PRODUCTS = {  # precision → what is multiplied, and how
    "float32": (jnp.float32, "highest"),
    "tf32": (jnp.float32, "default"),
    "bfloat16": (jnp.bfloat16, "default"),
}


def probe(folder: Folder) -> None:
    """Notes the ceilings, then every program in the order of the list; one that fails costs no other."""
    on_cpu = jax.default_backend() == "cpu"
    limits = ceilings(SIDE_ON_CPU if on_cpu else SIDE)
    folder.note(event="ceilings", **limits)
    # A CPU has no TF32: it would be asked for the same again.
    devices = {name: Device(folder, name) for name in (["float32"] if on_cpu else ["float32", "tf32"])}
    runs = {run["name"]: run for run in folder.runs}
    with ThreadPoolExecutor() as pool:  # compilers side by side; times are taken when all have ended
        loops = [
            (program, precision, pool.submit(Loop, devices[precision], runs[program["first_run"]], STEPS))
            for program in folder.programs.values()
            for precision in (devices if program["dtype"] == "float32" else list(devices)[-1:])
        ]
    for program, precision, loop in loops:
        precision = precision if program["dtype"] == "float32" else "bfloat16"
        about = {"program": runs[program["first_run"]]["program"], "precision": precision}
        try:
            folder.note(event="probe", **about, **measured(loop.result(), limits, precision))
        except Exception as error:
            folder.note(event="failed", **about, error=f"{type(error).__name__}: {error}"[:500])


def measured(loop: Loop, limits: Mapping[str, float], precision: str) -> dict[str, float]:
    """Images/s, seconds of an epoch, FLOP and bytes of a step, and their shares of the ceilings.

    Raises `ValueError` where the first losses are not TensorFlow's.
    """
    loop.check()
    state, bank, seconds = jax.device_put(loop.start()), loop.random_bank(), math.inf
    for _ in range(PASSES):
        state, _, taken = loop.take(state, bank, 0)
        seconds = min(seconds, taken / loop.steps)
    size = loop.run["batch_size"]
    return {
        "images_per_second": size / seconds,
        "epoch_seconds": len(loop.ids) // size * seconds,
        "flops": loop.flops,
        "bytes": loop.bytes,
        "of_product": loop.flops / seconds / limits[precision],
        "of_bandwidth": loop.bytes / seconds / limits["bytes"],
    }


def ceilings(side: int) -> dict[str, float]:
    """FLOP/s of a product of two square matrices in each precision, and "bytes", read and written a second.

    Args:
        side: rows of a matrix; the array that is read and written is as large as four of them.
    """
    # Random numbers, since a chip is faster on zeros; powers of such a matrix neither vanish nor explode.
    matrix = jax.random.normal(jax.random.key(0), (side, side)) / math.sqrt(side)
    found = {}
    for name, (dtype, precision) in PRODUCTS.items():
        product = functools.partial(jnp.matmul, matrix.astype(dtype), precision=precision)
        found[name] = 2 * side**3 / fastest(jax.jit(product), matrix.astype(dtype))
    array = jnp.zeros((4, side, side), jnp.float32)
    found["bytes"] = 2 * array.nbytes / fastest(jax.jit(lambda x: x + 1), array)
    return found


def fastest(function: Callable, x: jax.Array) -> float:
    """Seconds of a call, each of what the one before returned; the best of some passes."""
    x, seconds = function(x).block_until_ready(), math.inf
    for _ in range(PASSES):
        start = time.perf_counter()
        for _ in range(CALLS):
            x = function(x)
        x.block_until_ready()
        seconds = min(seconds, (time.perf_counter() - start) / CALLS)
    return seconds
