"""One run on the device: an epoch is one call, and the state never leaves the device in between."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from benchmarks.gpu.folder import Folder, write_npz
from benchmarks.gpu.programs import load_program

TOLERANCE = 0.05
"""Largest relative difference of the first losses from TensorFlow's. TF32 alone makes some thousandths."""


class Device:
    """What all runs of a process share: images, labels, banks and compiled programs, all on the device."""

    def __init__(self, folder: Folder, precision: str) -> None:
        self.folder, self.precision = folder, precision
        jax.config.update("jax_compilation_cache_dir", str(folder.work / "cache"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        kind = jax.devices()[0].device_kind
        folder.note(event="device", device=kind, jax=jax.__version__, precision=precision)
        self.images = jax.device_put(np.load(folder.images_file))
        self.labels = jax.device_put(folder.values["labels"].astype(np.int32))
        self.costs: dict[str, dict] = {}
        self._banks: dict[str, jax.Array] = {}
        self._compiled: dict[str, Callable] = {}

    def bank(self, run: Mapping) -> jax.Array | None:
        """Logits (all images, classes, teachers) of the run's bank; the last one used stays on the device."""
        if "bank" not in run:
            return None
        name = _bank_of(run)
        if name not in self._banks:
            self._banks = {name: jax.device_put(self._logits(name))}
        return self._banks[name]

    def _logits(self, name: str) -> np.ndarray:
        """What teachers say of the training images, float32 throughout; 0 for the other images."""
        path = self.folder.bank_file(name)
        if not path.exists():
            start = time.perf_counter()
            logits, difference = self._asked(name)
            np.save(path, logits)
            seconds = time.perf_counter() - start
            self.folder.note(event="bank", bank=name, seconds=seconds, difference=difference)
        return np.load(path)

    def _asked(self, name: str) -> tuple[np.ndarray, float]:
        """Logits of all teachers, and their largest difference from TensorFlow's on the first images."""
        program, ids = self.folder.teachers[name], self.folder.values["images/train"]
        size, count = program["arguments"][-1]["shape"][0], len(program["arguments"]) - 1
        # The last batch is filled with images before it; of an image in two batches the first one counts.
        starts = np.minimum(np.arange(0, len(ids), size), len(ids) - size)
        order = ids[starts[:, None] + np.arange(size)].astype(np.int32)
        step = load_program(
            self.folder.export / program["file"], program["arguments"], program["results"], "float32"
        )
        run, columns = logits_of(step), []
        for k in range(program["teachers"]):
            weights = [self.folder.values[f"{name}/{k}/{i:04d}"] for i in range(count)]
            columns.append(np.asarray(run(jax.device_put(weights), self.images, order)))
        logits = np.stack(columns, -1)
        wanted = np.array(program["first_logits"])  # (teachers, images, classes)
        difference = float(np.abs(logits[0, : wanted.shape[1]] - wanted.transpose(1, 2, 0)).max())
        found = np.zeros((len(self.labels), *logits.shape[2:]), np.float32)
        for part, rows in zip(order[::-1], logits[::-1], strict=True):
            found[part] = rows
        return found, difference

    def bank_shape(self, run: Mapping) -> jax.ShapeDtypeStruct | None:
        """What `bank` returns, before it is made."""
        if "bank" not in run:
            return None
        classes = self.folder.networks[run["network"]]["classes"]
        shape = len(self.labels), classes, self.folder.teachers[_bank_of(run)]["teachers"]
        return jax.ShapeDtypeStruct(shape, np.float32)

    def compiled(self, name: str, function: Callable, program: Mapping, *example) -> Callable:
        """`function(step)` for these arguments; the next process finds it in the cache.

        `costs` gets "flops" and "bytes" of one turn of its loop as XLA counts them. Kernels that come from
        cuDNN count as nothing, so that on GPUs the convolutions are missing.
        """
        if name not in self._compiled:
            path = self.folder.export / program["file"]
            step = load_program(path, program["arguments"], program["results"], self.precision)
            start = time.perf_counter()
            self._compiled[name] = compiled = function(step).lower(*example).compile()
            seconds, costs = time.perf_counter() - start, compiled.cost_analysis() or {}
            self.costs[name] = {"flops": costs.get("flops"), "bytes": costs.get("bytes accessed")}
            self.folder.note(event="compiled", program=name, seconds=seconds, **self.costs[name])
        return self._compiled[name]


def _bank_of(run: Mapping) -> str:
    return f"{run['network']}-{run['bank']}"


def epoch_of(step: Callable, inputs: list[str]) -> Callable:
    """A loop over steps: (state, images, labels, bank, order, seeds, curves) → (state, metrics by step)."""

    def epoch(state, images, labels, bank, order, seeds, curves):
        def body(state, now):
            index, seed, curve = now
            batch = {"images": images[index], "labels": labels[index], "seed": seed, **curve}
            batch |= {} if bank is None else {"bank": bank[index]}
            *state, metrics = step(*state, *(batch[name] for name in inputs))
            return state, metrics

        return jax.lax.scan(body, state, (order, seeds, curves))

    return jax.jit(epoch, donate_argnums=0)


def logits_of(evaluation: Callable) -> Callable:
    """A loop over batches: (weights, images, order (k, b)) → logits (k, b, classes)."""
    return jax.jit(
        lambda weights, images, order: jax.lax.map(lambda i: evaluation(*weights, images[i])[0], order)
    )


class Loop:
    """The steps of an epoch of a run, compiled as one call.

    Args:
        device: see `Device`.
        run: of the list.
        most: steps of an epoch that are taken; None: all.

    Attributes:
        steps: how many it takes.
        flops: of the products and convolutions of one step.
        bytes: that a step reads and writes, see `Device.compiled`.
    """

    def __init__(self, device: Device, run: Mapping, most: int | None = None) -> None:
        self.device, self.run, self.folder = device, run, device.folder
        values, self.program = self.folder.values, self.folder.programs[run["program"]]
        self.ids = values["images/train"]
        self.steps = min(len(self.ids) // run["batch_size"], most or len(self.ids))
        names = [name for name in self.program["inputs"] if f"{run['name']}/{name}" in values]
        self.curves = {name: values[f"{run['name']}/{name}"] for name in names}
        name = f"{run['program']}-{self.steps}"
        make = functools.partial(epoch_of, inputs=self.program["inputs"])
        data = device.images, device.labels, device.bank_shape(run)
        self._epoch = device.compiled(name, make, self.program, self.start(), *data, *self._arguments(0))
        self.flops, self.bytes = self.program["flops"], device.costs[name]["bytes"]

    def start(self) -> list[np.ndarray]:
        """The exported network, momenta zero."""
        network = self.folder.networks[self.run["network"]]
        n, count = network["parameters"], network["parameters"] + network["statistics"]
        first = [self.folder.values[f"{self.run['network']}/start/{i:04d}"] for i in range(count)]
        return [*first[:n], *map(np.zeros_like, first[:n]), *first[n:]]

    def random_bank(self) -> jax.Array | None:
        """Logits that TensorFlow, too, has taken the first steps with."""
        shape = self.device.bank_shape(self.run)
        rng = np.random.default_rng(0)
        return shape and jax.device_put(3 * rng.standard_normal(shape.shape, np.float32))

    def _order(self, epoch: int) -> np.ndarray:
        """Images of every step (steps, b): the order of `dataloader.epoch_order`."""
        order = np.random.default_rng([self.run["seed"], epoch]).permutation(len(self.ids))
        if epoch == 0 and order[:8].tolist() != self.run["first_of_order"]:
            raise ValueError("This NumPy shuffles in another order than the one that exported")
        return self.ids[order[: self.steps * self.run["batch_size"]]].reshape(self.steps, -1).astype(np.int32)

    def _arguments(self, epoch: int) -> tuple:
        """Order, seeds and curves of an epoch."""
        part = slice(epoch * self.steps, (epoch + 1) * self.steps)
        seeds = np.stack([np.full(self.steps, self.run["seed"]), np.arange(part.start, part.stop)], 1)
        curves = {name: curve[part] for name, curve in self.curves.items()}
        return self._order(epoch), seeds.astype(np.int32), curves

    def take(self, state: list, bank: jax.Array | None, epoch: int) -> tuple[list, np.ndarray, float]:
        """The state behind an epoch, loss and accuracy of its steps (steps, 2), and its seconds."""
        arguments = jax.device_put(self._arguments(epoch))
        start = time.perf_counter()
        state, metrics = self._epoch(state, self.device.images, self.device.labels, bank, *arguments)
        metrics = np.asarray(metrics)
        return state, metrics, time.perf_counter() - start

    def check(self) -> None:
        """Takes the first steps of the program's first run on a bank of random logits, as TensorFlow did.

        Raises `ValueError` where losses differ by more than rounding to TF32 explains.
        """
        _, metrics, _ = self.take(jax.device_put(self.start()), self.random_bank(), 0)
        wanted = np.array(self.program["first_steps"])[:, 0]
        found = metrics[: len(wanted), 0]
        difference = float(np.abs(found / wanted - 1).max())
        losses = {"losses": found.tolist(), "tensorflow": wanted.tolist()}
        self.folder.note(event="check", program=self.run["program"], difference=difference, **losses)
        if not difference < TOLERANCE:
            raise ValueError(
                f"{self.run['program']} does not compute what TensorFlow does: {found} and not {wanted}"
            )


class Course:
    """One run, from its start or from its last checkpoint."""

    def __init__(self, device: Device, run: Mapping) -> None:
        self.device, self.run, self.folder = device, run, device.folder
        self.network = self.folder.networks[run["network"]]
        self.parameters = self.network["parameters"]
        self._evaluated = self._evaluation_order()
        with ThreadPoolExecutor() as pool:  # compilers and teachers side by side
            bank, loop = pool.submit(device.bank, run), pool.submit(Loop, device, run)
            evaluation = pool.submit(self._compiled_evaluation)
        self.bank, self.loop, self._evaluate = bank.result(), loop.result(), evaluation.result()
        self.done, state = self._restored() or (0, self.loop.start())
        self.state = jax.device_put(state)

    def _restored(self) -> tuple[int, list[np.ndarray]] | None:
        saved = self.folder.checkpoint(self.run["name"])
        return saved and (int(saved.pop("epoch")), [saved[name] for name in sorted(saved)])

    def _evaluation_order(self) -> np.ndarray:
        """Hold-out images in full batches, the last one filled up from the front."""
        ids = self.folder.values["images/holdout"]
        size = self.network["evaluation"]["arguments"][-1]["shape"][0]
        return np.resize(ids, (-(-len(ids) // size), size)).astype(np.int32)

    def _compiled_evaluation(self) -> Callable:
        name, program = f"{self.run['network']}-evaluation", self.network["evaluation"]
        weights = [jax.ShapeDtypeStruct(a["shape"], a["dtype"]) for a in program["arguments"][:-1]]
        return self.device.compiled(name, logits_of, program, weights, self.device.images, self._evaluated)

    def epoch(self) -> dict:
        """Trains one more epoch; returns its row of the log."""
        self.state, metrics, seconds = self.loop.take(self.state, self.bank, self.done)
        if not np.isfinite(metrics).all():
            raise FloatingPointError(f"The loss is no longer finite in epoch {self.done + 1}")
        self.done += 1
        loss, accuracy = metrics.mean(0).tolist()
        rate = self.loop.steps * self.run["batch_size"] / seconds
        row = {"epoch": self.done, "loss": loss, "accuracy": accuracy, **self.evaluate()}
        return row | {"seconds": seconds, "images_per_second": rate}

    def evaluate(self) -> dict:
        """Mean cross-entropy and accuracy of the hold-out images."""
        weights = [*self.state[: self.parameters], *self.state[2 * self.parameters :]]
        logits = self._evaluate(weights, self.device.images, jax.device_put(self._evaluated))
        ids = self.folder.values["images/holdout"]
        logits = np.asarray(logits, np.float64).reshape(self._evaluated.size, -1)[: len(ids)]
        labels = self.folder.values["labels"][ids]
        logits -= logits.max(1, keepdims=True)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(ids)), labels]
        return {"holdout_loss": losses.mean(), "holdout_accuracy": (logits.argmax(1) == labels).mean()}

    # --- what stays -----------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Everything that the next epoch depends on."""
        arrays = {f"{i:04d}": array for i, array in enumerate(jax.device_get(self.state))}
        write_npz(self.folder.checkpoint_file(self.run["name"]), {**arrays, "epoch": np.array(self.done)})

    def save_result(self) -> None:
        """Parameters and statistics of the trained network."""
        n = self.parameters
        arrays = jax.device_get([*self.state[:n], *self.state[2 * n :]])
        write_npz(self.folder.result_file(self.run["name"]), {f"{i:04d}": a for i, a in enumerate(arrays)})
        self.folder.checkpoint_file(self.run["name"]).unlink(missing_ok=True)
