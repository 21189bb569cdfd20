"""Exports networks, train steps, teachers and a list of runs for `benchmarks.gpu.run`. The TensorFlow side.

    python -m benchmarks.gpu.export --run res56=RUN --run res20=RUN --data_path DATA --out EXPORT

Every RUN is the folder of a finished `train_cifar.py … --until search_ekg`. What follows, the step `train`
of its recipe, is exported as one pure function in StableHLO, and so are the teachers of its step `bank`.
EXPORT holds runs.json (programs, networks, runs), values.npz (weights, rates, labels, images of each part), a
snapshot for each network, and the images.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common import command, commit, named_paths
from benchmarks.gpu.images import write_mosaics
from secateur import dataloader
from secateur.distillation import choose_teachers, for_lesson, lesson_objective, write_bank
from secateur.nets.names import NO_WEIGHTS, published_name
from secateur.op_utils import Trainer, compute_in, pure_gradients, pure_step
from secateur.pruning import Plan, complexity, mask
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.inputs import load_splits, normalisation_of
from secateur.recipes.engine.outdated import MAY_DIFFER
from secateur.recipes.engine.program import ENGINE, program_of
from secateur.recipes.engine.step import State, Step, make_step
from secateur.recipes.steps.bank import Bank
from secateur.recipes.steps.search_ekg import history_of
from secateur.recipes.steps.train import Train
from secateur.recipes.training.lessons import taught
from secateur.recipes.training.loop import TrainingSpec
from secateur.runs import RunFolder, UsageError, cli, load_snapshot, read_json, write_atomic, write_json

RUNS = Path(__file__).with_name("full_schedules.toml")
CHECKED = 3
"""Steps that TensorFlow takes here as well, for the runner to compare its losses with."""
DTYPES = ("float32", "mixed_bfloat16")
"""What the step `train` computes in; float16 would need its scale of the loss."""
OWN = ("name", "network", "bank", "seed", "dtype")
"""Keys of a run; all others are keys of the step `train`."""


# --- a network and how it is fine-tuned ---------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A finished search: what its recipe does next, and the network that it does this to.

    Attributes:
        name: of the network in the list of runs.
        context, state: of the run, behind its search.
        bank, train: the steps that follow.
    """

    name: str
    context: RunContext
    state: State
    bank: Bank
    train: Train

    @classmethod
    def open(cls, name: str, folder: Path, data_path: str | None) -> Subject:
        """Reads the folder of a run; raises `UsageError` where the search is not finished."""
        received = f"Received: run={name}={str(folder)!r}"
        if not (folder / "config.json").exists():
            raise UsageError(f"Not a run folder. {received}")
        config = read_json(folder / "config.json")
        if config.get("engine") != ENGINE:
            raise UsageError(f"A run of another version, which cannot be continued. {received}")
        own = {key: config[key] for key in RunOptions.model_fields}
        options = RunOptions(**own | {"until": None, "data_path": data_path or own["data_path"]})
        steps = program_of(options).steps
        kinds = [step.kind for step in steps]
        if kinds[-2:] != ["bank", "train"] or options.accum != 1:
            raise UsageError(f"Its recipe has to end in bank and train, without --accum. {received}")
        with RunFolder(folder, config, MAY_DIFFER) as found:
            if f"{steps[-3].label}-cut" not in found.steps():
                raise UsageError(f"Its search has not finished. {received}")
            order = normalisation_of("auto", load_snapshot(folder / steps[-3].file))
            strategy = tf.distribute.get_strategy()
            context = RunContext(options, found, None, load_splits(options, order), strategy)
            return cls(name, context, _behind(context, steps[:-2]), *steps[-2:])

    @cached_property
    def network(self) -> tuple[keras.Model, Plan | None]:
        """The sub-network in widths that train fast, and the plan that cuts the surplus off."""
        return self.train.begin(self.context, self.state)

    @property
    def dense(self) -> Subject:
        """The same with the network before its search."""
        state = replace(self.state, network=self.state.dense, plan=None)
        return replace(self, name=f"{self.name}-dense", state=state)


def _behind(context: RunContext, steps: Sequence[Step]) -> State:
    """The state behind steps that are all done."""
    state = State()
    for step in steps:
        state = step.run(context, replace(state, name=step.label))
    return state


@dataclass(frozen=True)
class Course:
    """A run of the list: its step `train`, and what that trains.

    Attributes:
        step: with the keys of the list.
        model: the network.
        trained: what the step computes with: `model`, or a lesson around it.
        spec: how.
        teachers: how many the bank has; 0 without one.
        dtype: of what the step computes, as `--dtype` has it; its arguments and results are float32.
    """

    step: Train
    model: keras.Model
    trained: keras.Model
    spec: TrainingSpec
    teachers: int
    dtype: str

    @classmethod
    def of(cls, subject: Subject, run: Mapping, teachers: int) -> Course:
        """Raises `UsageError` for what the runner cannot do."""
        alone = {} if "bank" in run else {"teacher": "none", "views": 1}
        keys = {key: value for key, value in run.items() if key not in OWN or key == "seed"}
        step = make_step({**subject.train.to_json(), **alone, **keys})
        model, _ = step.begin(subject.context, subject.state)
        if (dtype := run.get("dtype", "float32")) not in DTYPES:
            raise UsageError(
                f"A run computes in {' or '.join(DTYPES)}. Received: {run['name']}: dtype={dtype}"
            )
        compute_in(dtype, model)
        state = replace(subject.state, name=run["name"])
        spec = step.spec(subject.context, state)
        if spec.optimizer != "nesterov" or step.filter == "dataset" or step.images != "train":
            raise UsageError(
                "Only nesterov on all training images, with no filter over the data set, is exported. "
                f"Received: {run['name']}: {spec.optimizer}, {step.images}, filter={step.filter}"
            )
        if "bank" not in run:
            return cls(step, model, model, spec, 0, dtype)
        with tempfile.TemporaryDirectory() as folder:
            path = stand_in(subject, teachers, Path(folder) / "bank.npy")
            asked = replace(state, bank=path, bank_of=run["bank"])
            found = taught(subject.context, step, asked, model, False)
            extra = np.array(found.bank.logits), found.bank.row_of_id
        spec = replace(
            spec,
            objective=lesson_objective,
            preprocess=for_lesson(spec.preprocess),
            extra=lambda ids: {"bank": extra[0][extra[1][ids]]},
        )
        return cls(step, model, found.lesson, spec, teachers, dtype)

    @property
    def flops(self) -> int:
        """Of a step: two for each MAC forward, and for its gradients by images and by kernels each."""
        return 3 * 2 * complexity(self.model).macs * self.spec.batch_size * self.step.views

    @property
    def key(self) -> dict:
        """What its program depends on; two runs that have it in common share one."""
        curves = ("name", "file", "seed", "epochs", "learning_rate", "schedule", "points", "decay")
        keys = {k: v for k, v in self.step.to_json().items() if k not in (*curves, "cycle_momentum", "shown")}
        return keys | {"teachers": self.teachers, "dtype": self.dtype}

    def curves(self) -> dict[str, np.ndarray]:
        """What changes from step to step, float32 (steps,) each, by the name of the argument."""
        spec, steps = self.spec, len(self.spec.images) // self.spec.batch_size * self.spec.epochs
        momenta = spec.momenta(steps) if spec.momenta else np.full(steps, 0.9, np.float32)
        return {"learning_rate": spec.learning_rates(steps), "momentum": momenta}


def stand_in(subject: Subject, teachers: int, path: Path) -> Path:
    """A bank of random logits, for the first steps on both sides."""
    splits = subject.context.splits
    shape = _official(splits), splits.facts.num_classes, teachers
    logits = 3 * np.random.default_rng(0).standard_normal(shape, np.float32)
    train = splits.train
    write_bank(path, [lambda images: logits[train.ids]], train.images, train.ids)
    return path


def _official(splits: dataloader.Splits) -> int:
    """Number of official training images, as far as they are used."""
    return 1 + max(int(part.ids.max()) for part in (splits.train, splits.holdout))


# --- functions of flat lists of tensors ---------------------------------------------------------------------


def inputs_of(course: Course, facts: dataloader.Facts) -> list[dict]:
    """Arguments of a step behind the state, in their order: {"name", "shape", "dtype"} of each."""
    b = course.spec.batch_size
    rows = [("images", (b, *facts.shape), "uint8"), ("labels", (b,), "int32")]
    rows += [("bank", (b, facts.num_classes, course.teachers), "float32")] if course.teachers else []
    rows += [("learning_rate", (), "float32"), ("momentum", (), "float32"), ("seed", (2,), "int32")]
    return [{"name": name, "shape": list(shape), "dtype": dtype} for name, shape, dtype in rows]


def flat_step(course: Course, inputs: Sequence[Mapping]) -> Callable:
    """The train step: parameters, momenta, statistics, `inputs` → the first three anew, [loss, accuracy]."""
    model, spec = course.trained, course.spec
    gradients = pure_gradients(model, spec.preprocess, spec.objective, spec.weight_decay)
    n, m = len(model.trainable_variables), len(model.non_trainable_variables)
    names = [row["name"] for row in inputs]

    def step(*tensors):
        state = tensors[:n], tensors[n : 2 * n], tensors[2 * n : 2 * n + m]
        batch = dict(zip(names, tensors[2 * n + m :], strict=True))
        rate, momentum, seed = (batch.pop(name) for name in ("learning_rate", "momentum", "seed"))
        return tf.nest.flatten(pure_step(gradients, momentum)(*state, batch, seed, rate))

    return step


def flat_logits(subject: Subject, model: keras.Model) -> Callable:
    """Logits with moving averages: parameters, statistics, images uint8 → (b, classes)."""
    n = len(model.trainable_variables)

    def logits(*tensors):
        x = subject.context.inputs(tensors[-1])
        return [model.stateless_call(tensors[:n], tensors[n:-1], x, training=False)[0]]

    return logits


def flat_teacher(subject: Subject, model: keras.Model, training: bool) -> Callable:
    """(parameters …, images uint8) → logits; statistics are constants of the program."""
    known = [v.numpy() for v in model.non_trainable_variables]

    def logits(*tensors):
        stats = list(map(tf.constant, known))  # made in here: tensors from outside would become arguments
        x = subject.context.inputs(tensors[-1])
        return [model.stateless_call(list(tensors[:-1]), stats, x, training=training)[0]]

    return logits


def write_program(path: Path, function: Callable, arguments: Sequence[Mapping]) -> dict:
    """Compiles a function of tensors to StableHLO; returns its {"file", "arguments", "results"}."""
    example = [tf.zeros(a["shape"], a["dtype"]) for a in arguments]
    compiled = tf.function(function, jit_compile=True, autograph=False)
    text = compiled.experimental_get_compiler_ir(*example)(stage="stablehlo")
    write_atomic(path, gzip.compress(text.encode(), mtime=0))
    concrete = compiled.get_concrete_function(*example)
    if concrete.captured_inputs:
        raise ValueError(f"{path.name} reads {len(concrete.captured_inputs)} tensors that are no arguments")
    results = [_signature(t) for t in concrete.structured_outputs]
    return {"file": path.name, "arguments": list(map(_signature, example)), "results": results}


def _signature(tensor: tf.Tensor) -> dict:
    return {"shape": list(tensor.shape), "dtype": tensor.dtype.name}


def _floats(variables: Sequence[keras.Variable]) -> list[dict]:
    return [{"shape": v.shape, "dtype": "float32"} for v in variables]


# --- teachers -----------------------------------------------------------------------------------------------

Teachers = tuple[Callable, list[list[np.ndarray]]]  # logits, and the parameters of each teacher


def interim_teachers(subject: Subject) -> Teachers:
    """The interim networks that `bank` asks: the dense one with dead channels zero, kernels rescaled.

    They compute with the BN statistics of batches.
    """
    history = history_of(load_snapshot(subject.state.search).facts)
    interim = history[:-1] or history
    chosen = choose_teachers([one.loss for one in interim], subject.bank.count)
    dense = subject.context.load(subject.state.searched)
    masked = [mask(dense, interim[i].plan, preserve_norm=True) for i in chosen]
    parameters = [[v.numpy() for v in model.trainable_variables] for model in masked]
    return flat_teacher(subject, dense, training=True), parameters


def dense_teacher(subject: Subject) -> Teachers:
    """The network before the search, with moving averages."""
    dense = subject.context.load(subject.state.dense)
    return flat_teacher(subject, dense, training=False), [[v.numpy() for v in dense.trainable_variables]]


TEACHERS = {"interim": interim_teachers, "dense": dense_teacher}


# --- what TensorFlow does -----------------------------------------------------------------------------------


def first_steps(course: Course) -> list[list[float]]:
    """(loss, accuracy) of the first steps of a run by the project's `Trainer`; moves its weights."""
    spec, images = course.spec, course.spec.images
    trainer = Trainer(
        course.trained, spec.preprocess, spec.objective, weight_decay=spec.weight_decay, compile_=False
    )
    order = dataloader.epoch_order(len(images), spec.seed, 0)[: CHECKED * spec.batch_size]
    batches = [
        {"images": batch.images, "labels": batch.labels, **(spec.extra(batch.ids) if spec.extra else {})}
        for batch in dataloader.batches(images, spec.batch_size, order)
    ]
    seeds = [(spec.seed, step) for step in range(CHECKED)]
    return [
        [loss, accuracy] for loss, accuracy, _ in trainer.train(batches, seeds, *course.curves().values())
    ]


# --- a folder -----------------------------------------------------------------------------------------------


class Export:
    """The folder while it is filled."""

    def __init__(self, out: Path, subjects: Sequence[Subject]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.subjects = out, {subject.name: subject for subject in subjects}
        self.values: dict[str, np.ndarray] = {}
        self.networks: dict[str, dict] = {}
        self.programs: dict[str, dict] = {}
        self.teachers: dict[str, dict] = {}

    def _network(self, subject: Subject) -> dict:
        """Weights to start from, the program that evaluates, and a snapshot for the weights of a result."""
        (model, inner), context = subject.network, subject.context
        params, stats = model.trainable_variables, model.non_trainable_variables
        for i, variable in enumerate([*params, *stats]):
            self.values[f"{subject.name}/start/{i:04d}"] = variable.numpy()
        context.save(self.out / f"{subject.name}.pkl", model, subject.state.plan)
        images = {"shape": (context.config.val_batch_size, *context.splits.facts.shape), "dtype": "uint8"}
        file = self.out / f"{subject.name}-evaluation.mlir.gz"
        program = write_program(file, flat_logits(subject, model), [*_floats([*params, *stats]), images])
        names = {id(v): published_name(layer.name, v.name) for layer in model.layers for v in layer.variables}
        return {
            "parameters": len(params),
            "statistics": len(stats),
            "names": [None if v.name in NO_WEIGHTS else names[id(v)] for v in [*params, *stats]],
            "inner": inner.to_json() if inner else None,
            "arch": context.config.arch,
            "dataset": context.config.dataset,
            "classes": context.splits.facts.num_classes,
            "evaluation": program,
        }

    def add(self, run: Mapping) -> dict:
        """Exports what a run needs; returns its row."""
        subject = self.subjects[run["network"]]
        if subject.name not in self.networks:
            self.networks[subject.name] = self._network(subject)
        teachers = self._teachers(subject, run["bank"]) if "bank" in run else 0
        course = Course.of(subject, run, teachers)
        spec = course.spec
        for name, curve in course.curves().items():
            self.values[f"{run['name']}/{name}"] = curve
        order = dataloader.epoch_order(len(spec.images), spec.seed, 0)[:8].tolist()
        row = {"program": self._step(subject, run, course), "epochs": spec.epochs}
        return {**run, **row, "batch_size": spec.batch_size, "first_of_order": order}

    def _step(self, subject: Subject, run: Mapping, course: Course) -> str:
        """The name of the program, which is written for the first run that needs it."""
        known = {"network": subject.name, "train": course.key}
        if found := next((n for n, p in self.programs.items() if p["of"] == known), None):
            return found
        name = run["name"].rpartition("-")[0]
        inputs = inputs_of(course, subject.context.splits.facts)
        params, stats = course.trained.trainable_variables, course.trained.non_trainable_variables
        own = [*course.model.trainable_variables, *course.model.non_trainable_variables]
        if list(map(id, [*params, *stats])) != list(map(id, own)):
            raise UsageError(f"Losses with weights of their own are not exported. Received: {run['name']}")
        state = _floats([*params, *params, *stats])
        file = self.out / f"{name}.mlir.gz"
        program = write_program(file, flat_step(course, inputs), [*state, *inputs])
        more = {"of": known, "inputs": [row["name"] for row in inputs], "first_run": run["name"]}
        more |= {"dtype": course.dtype, "flops": course.flops}
        self.programs[name] = program | more | {"first_steps": first_steps(course)}
        print(f"{name}: {file.stat().st_size / 2**10:.0f} KiB", flush=True)
        return name

    def _teachers(self, subject: Subject, bank: str) -> int:
        """The program and the weights that fill a bank, once; returns how many teachers it has."""
        name, context = f"{subject.name}-{bank}", subject.context
        if name in self.teachers:
            return self.teachers[name]["teachers"]
        function, parameters = TEACHERS[bank](subject)
        first = context.splits.train.images[: context.config.val_batch_size]
        images = {"shape": first.shape, "dtype": "uint8"}
        arguments = [{"shape": p.shape, "dtype": "float32"} for p in parameters[0]]
        logits = [
            function(*map(tf.constant, own), tf.constant(first))[0].numpy()[:8].tolist() for own in parameters
        ]
        program = write_program(self.out / f"{name}.mlir.gz", function, [*arguments, images])
        for k, own in enumerate(parameters):
            self.values |= {f"{name}/{k}/{i:04d}": p for i, p in enumerate(own)}
        self.teachers[name] = program | {"teachers": len(parameters), "first_logits": logits}
        return len(parameters)

    def finish(self, rows: Sequence[Mapping]) -> None:
        """Writes the list of runs, all arrays, labels and images."""
        splits = next(iter(self.subjects.values())).context.splits
        labels = np.zeros(_official(splits), np.int32)
        images = np.zeros((len(labels), *splits.facts.shape), np.uint8)
        for name, part in (("train", splits.train), ("holdout", splits.holdout)):
            labels[part.ids], images[part.ids] = part.labels, part.images
            self.values[f"images/{name}"] = part.ids.astype(np.int32)
        self.values["labels"] = labels
        write_atomic(self.out / "values.npz", lambda file: np.savez_compressed(file, **self.values))
        write_mosaics(self.out / "images", images)
        about = {"commit": commit(), "command": command(), "tensorflow": tf.__version__}
        known = {"networks": self.networks, "programs": self.programs, "teachers": self.teachers}
        write_json(self.out / "runs.json", {**about, **known, "runs": rows})


def listed(path: Path) -> list[dict]:
    """The runs of a TOML file, one for each seed, in order."""
    rows = tomllib.loads(path.read_text())["runs"]
    return [
        {**{k: v for k, v in row.items() if k != "seeds"}, "name": f"{row['name']}-{seed}", "seed": seed}
        for row in rows
        for seed in row["seeds"]
    ]


# --- command line -------------------------------------------------------------------------------------------


def main() -> None:
    """argv → export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", action="append", required=True, metavar="NAME=FOLDER", help="a network of the list"
    )
    parser.add_argument("--data_path")
    parser.add_argument("--runs", type=Path, default=RUNS, help="list of runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    folders = named_paths("run", args.run)
    subjects = [Subject.open(name, path, args.data_path) for name, path in folders.items()]
    export = Export(args.out, [*subjects, *(subject.dense for subject in subjects)])
    export.finish([export.add(run) for run in listed(args.runs) if run["network"] in export.subjects])


if __name__ == "__main__":
    sys.exit(cli(main))
