"""Trains what `benchmarks.stablehlo` exported, on a machine that has JAX and NumPy and no TensorFlow.

    python -m benchmarks.run_stablehlo EXPORT [--train_epoch 100]

The data set lies on the device as one uint8 array and batches are gathered there; parameters, momenta and
statistics never leave it between steps. Order, seeds and learning rates are those of the TensorFlow loop.
Every epoch ends in a checkpoint: the same command continues a run that was killed, by SIGTERM too. The result
is EXPORT/trained_param.pkl, a snapshot for test.py. It needs benchmarks/, dataloader/, recipes/ and runs/.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secateur.dataloader.batches import epoch_order
from secateur.recipes.training.schedules import step_decay
from secateur.runs import (
    Snapshot,
    TrainingError,
    UsageError,
    append_jsonl,
    checkpoints,
    cli,
    read_json,
    read_jsonl,
    save_snapshot,
    to_json,
    write_atomic,
)

try:
    import jax
    import jax.numpy as jnp

    # JAX runs StableHLO text from outside only through its own internals: jax.export wants its own format.
    from jax._src import compiler, xla_bridge
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jaxlib.mlir import ir
except ImportError as error:
    jax, MISSING = None, error

STATE = ("parameter", "momentum", "statistic")


def load_executable(path: Path):
    """Compiles a file of StableHLO text for the first device: f(list of arrays) → list of arrays."""
    with mlir.make_ir_context():
        module = ir.Module.parse(path.read_text())
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    devices = xla_client.DeviceList(tuple(jax.devices()[:1]))
    executable = compiler.backend_compile_and_load(xla_bridge.get_backend(), module, devices, options, [])

    def run(arguments: Sequence[jax.Array]) -> list[jax.Array]:
        results = executable.execute_sharded(list(arguments))
        return [parts[0] for parts in results.disassemble_into_single_device_arrays()]

    return run


class Runner:
    """One exported folder, its data on the device."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, read_json(folder / "manifest.json")
        self.course = self.manifest["course"]
        self._step = load_executable(folder / "step.mlir")
        self._eval = load_executable(folder / "eval.mlir")
        self.count = {role: sum(a["role"] == role for a in self.manifest["step"]) for role in STATE}
        parts = ["images", "labels"] + (["bank"] if self.course["teachers"] else [])
        self._train = [self._put(f"train_{part}") for part in parts]
        self._holdout, self._labels = self._put("holdout_images"), np.load(folder / "holdout_labels.npy")
        self._gather = jax.jit(lambda arrays, index: [jnp.take(a, index, axis=0) for a in arrays])
        self.per_epoch = len(self._train[1]) // self.course["batch_size"]

    def _put(self, name: str) -> jax.Array:
        single = self.folder / f"{name}.npy"
        paths = [single] if single.exists() else sorted(self.folder.glob(f"{name}-*.npy"))
        return jax.device_put(np.concatenate([np.load(path) for path in paths]))

    def start(self) -> list[jax.Array]:
        """The exported network, momenta zero."""
        with np.load(self.folder / "start.npz") as values:
            parameters = [values[f"parameter_{i:04d}"] for i in range(self.count["parameter"])]
            statistics = [values[f"statistic_{i:04d}"] for i in range(self.count["statistic"])]
        return jax.device_put([*parameters, *map(np.zeros_like, parameters), *statistics])

    def epoch(
        self, state: list[jax.Array], epoch: int, rates: np.ndarray
    ) -> tuple[list[jax.Array], np.ndarray]:
        """One pass over the training images; returns the new state and (loss, accuracy) of every step."""
        b, seed, metrics = self.course["batch_size"], self.course["seed"], []
        order = epoch_order(len(self._train[1]), seed, epoch)
        for i in range(self.per_epoch):
            step = epoch * self.per_epoch + i
            batch = self._gather(self._train, jnp.asarray(order[i * b : (i + 1) * b], jnp.int32))
            numbers = jax.device_put([np.array([seed, step], np.int32), np.float32(rates[step])])
            *state, metric = self._step([*state, *batch, *numbers])
            metrics.append(metric)
        return state, np.stack(jax.device_get(metrics))

    def evaluate(self, state: list[jax.Array]) -> tuple[float, float]:
        """Mean cross-entropy and accuracy of the hold-out images."""
        size, n = self.course["val_batch_size"], len(self._labels)
        weights = [*state[: self.count["parameter"]], *state[2 * self.count["parameter"] :]]
        rows = []
        for start in range(0, n, size):
            index = jnp.arange(start, start + size) % n  # fills up the last batch
            rows.append(self._eval([*weights, *self._gather([self._holdout], index)])[0])
        logits = np.concatenate(jax.device_get(rows))[:n].astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(n), self._labels]
        return float(losses.mean()), float((logits.argmax(1) == self._labels).mean())

    def save(self, path: Path, state: list[jax.Array]) -> None:
        """Writes a snapshot that test.py evaluates."""
        n = self.count["parameter"]
        names = [*self.manifest["names"]["parameter"], *self.manifest["names"]["statistic"]]
        arrays = dict(zip(names, jax.device_get([*state[:n], *state[2 * n :]]), strict=True))
        kept = {name: arrays[name] for name in self.manifest["order"]}
        save_snapshot(path, Snapshot(kept, *(self.manifest[key] for key in ("spec", "plan", "facts"))))


def train(folder: Path, epochs: int | None = None) -> None:
    """Trains to the end, from the last checkpoint when there is one."""
    runner = Runner(folder)
    course, log = runner.course, folder / "metrics.jsonl"
    epochs = epochs or course["train_epoch"]
    rates = step_decay(
        course["learning_rate"], runner.per_epoch * epochs, course["decay_points"], course["decay_rate"]
    )
    done, state = _resume(folder, runner, epochs)
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}: epochs {done + 1} to {epochs}", flush=True)
    for epoch in range(done, epochs):
        start = time.perf_counter()
        state, metrics = runner.epoch(state, epoch, rates)
        seconds = time.perf_counter() - start
        row = _row(epoch + 1, metrics, runner.evaluate(state), seconds)
        append_jsonl(log, {**row, "step_losses": metrics[:, 0]})
        arrays = {f"{i:04d}": array for i, array in enumerate(jax.device_get(state))}
        checkpoints.save(folder, "jax", Snapshot(arrays, facts={"epoch": epoch + 1, "epochs": epochs}))
        print(" ".join(f"{name} {value:.5g}" for name, value in row.items()), flush=True)
    runner.save(folder / "trained_param.pkl", state)
    print(f"{folder / 'trained_param.pkl'}: evaluate it with test.py")


def _row(epoch: int, metrics: np.ndarray, held: tuple[float, float], seconds: float) -> dict:
    loss, accuracy = metrics.mean(0).tolist()
    if not np.isfinite(loss):
        raise TrainingError(f"The loss is no longer finite; lower the learning rate. Received: loss={loss}")
    found = {"loss": loss, "accuracy": accuracy, "holdout_loss": held[0], "holdout_accuracy": held[1]}
    return {"epoch": epoch, **found, "seconds": seconds}


def _resume(folder: Path, runner: Runner, epochs: int) -> tuple[int, list[jax.Array]]:
    saved = checkpoints.load(folder, "jax")
    if saved is None:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        return 0, runner.start()
    if saved.facts["epochs"] != epochs:
        raise UsageError(
            f"This folder holds a run of {saved.facts['epochs']} epochs; delete its checkpoint_jax files. "
            f"Received: train_epoch={epochs}"
        )
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if row["epoch"] <= saved.facts["epoch"]]
    write_atomic(folder / "metrics.jsonl", "".join(to_json(row) + "\n" for row in rows).encode())
    return saved.facts["epoch"], jax.device_put([np.array(array) for array in saved.arrays.values()])


def main() -> None:
    """argv → training."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run_stablehlo", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="what benchmarks.stablehlo wrote")
    parser.add_argument("--train_epoch", type=int, help="epochs (default: those of the export)")
    args = parser.parse_args()
    if jax is None:
        raise UsageError(
            "This needs JAX 0.10.2 or 0.11, whose internals it uses: pip install 'jax==0.10.2' "
            f"(or 'jax[cuda13]==0.10.2'). Received: {MISSING}"
        )
    if args.train_epoch is not None and args.train_epoch < 1:
        raise UsageError(f"--train_epoch must be at least 1. Received: train_epoch={args.train_epoch}")
    if not (args.folder / "manifest.json").exists():
        raise UsageError(f"Not an export of benchmarks.stablehlo. Received: folder={str(args.folder)!r}")
    train(args.folder, args.train_epoch)


if __name__ == "__main__":
    sys.exit(cli(main))
