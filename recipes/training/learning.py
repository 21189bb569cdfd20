"""What a training learns from: the keys of its step, its losses, and all of it resolved for report.json."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from secateur import nets
from secateur.distillation import Loss, build, get_loss
from secateur.distillation.basics import temperature_for
from secateur.recipes.engine.options import Options, option
from secateur.runs import load_snapshot, sha256
from secateur.runs.errors import UsageError

NO_LOSS = "none"
BANKS = ("interim", "dense", "ensemble", "files")
TEACHERS = ("none", "dense", "ensemble", "bank", "files")
MEANS = ("kl", "logits", "softmax", "tempered")
FILTERS = ("none", "batch", "sample", "dataset")


class LearningOptions(Options):
    """The loss is CE · label_weight + Σ beta · loss."""

    teacher: Literal[TEACHERS] = option(
        "none",
        "the dense network, an ensemble of it and all snapshots of trainings, the last step `bank`, or the "
        "snapshots of --teacher, whose bank answers for them where images do not change",
    )
    own_start: bool = option(True, "whether the snapshot that it starts from is in the ensemble, too")
    distill: str = option("kd", "losses joined by +, such as kd+hap; none: labels alone")
    betas: list[Annotated[float, Field(ge=0)]] = option(
        [], "weights of the losses, of the last ones if fewer (default: published)"
    )
    label_weight: float = option(1.0, "of the cross-entropy with the labels", ge=0)
    temperature: float | None = option(
        None, "of kd and of the filter (default: EKG's, 4, and 10 from a thousand classes on)", gt=0
    )
    kd_factor: Literal["T2", "T", "1"] = option("T2", "of kd by the temperature")
    kd_over_classes: bool = option(False, "kd divided by the number of classes, as KESI's program does")
    mean: Literal[MEANS] = option(
        "kl", "of several teachers in kd: of divergences, or of their logits; behind a filter kl is logits"
    )
    teacher_weights: list[Annotated[float, Field(ge=0)]] = option(
        [], "of several teachers in kd (default: all alike)"
    )
    hap_ts: int = option(3, "last blocks of the teacher in hap and lsp", ge=1)
    filter: Literal[FILTERS] = option(
        "none", "leave out teachers farther from the first, the best, than the student is: EKG's rule"
    )

    @property
    def losses(self) -> list[str]:
        """Names of the losses."""
        return [] if self.distill == NO_LOSS else self.distill.split("+")

    @property
    def filter_mean(self) -> str:
        """How the teachers that a filter leaves are averaged: no divergences from them are left to mean."""
        return "logits" if self.mean == "kl" else self.mean

    @property
    def logits_alone(self) -> bool:
        """Whether the losses look at logits and at nothing else."""
        known = [get_loss(name) for name in self.losses]
        return all(loss.reads == "logits" and not loss.moves_kernels for loss in known)

    @property
    def needs_bank(self) -> bool:
        """Whether it cannot do without one."""
        asks = self.teacher == "bank" or (self.teacher == "files" and self.filter == "dataset")
        return asks and bool(self.losses)

    def settled(self, classes: int) -> Self:
        """The same with a temperature, EKG's for so many classes where none was given."""
        return self.model_copy(update={"temperature": self.temperature or temperature_for(classes)})

    def check_learning(self, label: str) -> None:
        """Raises `UsageError` for keys that exclude each other, unknown losses, and nothing to learn from.

        `label` is the step's; messages put it before the names of its keys.
        """
        names = self.losses
        if len(set(names)) < len(names):
            raise UsageError(f"Each loss once; {label}.betas weighs it. Received: distill={self.distill}")
        if len(self.betas) > len(names):
            raise UsageError(
                f"{label}.betas has a weight for each loss, {len(names)}. Received: {len(self.betas)}"
            )
        if (not names or self.teacher == "none") and self.label_weight == 0:
            raise UsageError(
                f"Nothing to learn from: no teacher and no labels. Received: {label}.label_weight=0.0"
            )
        if self.teacher_weights and self.filter != "none":
            raise UsageError(
                "Teachers are weighed or filtered, not both: a filter makes one of them. Received: "
                f"teacher_weights={self.teacher_weights}, filter={self.filter}"
            )
        check_losses_of(self, 2 if self.teacher in ("ensemble", "bank") else 1, label)
        if self.filter == "dataset" and self.teacher not in ("none", "bank", "files"):
            raise UsageError(
                "A filter over the data set asks a bank. "
                f"Received: {label}.teacher={self.teacher!r}, filter={self.filter!r}"
            )
        if self.teacher == "bank" and not self.logits_alone:
            raise UsageError(
                f"A bank has logits and nothing else. Received: {label}.distill={self.distill!r}"
            )

    def check_files(self, files: Sequence[str], label: str) -> None:
        """Raises `UsageError` where the snapshots of --teacher are too few, or not those that are weighed."""
        if self.teacher != "files" or not self.losses:
            return
        if not files:
            raise UsageError(
                "Who teaches? Give --teacher FILE.pkl …, or --distill none. Received: no teacher"
            )
        check_losses_of(self, len(files), label)
        if self.teacher_weights and len(self.teacher_weights) != len(files):
            raise UsageError(
                f"{label}.teacher_weights has one for each of {len(files)} teachers. "
                f"Received: {len(self.teacher_weights)}"
            )
        if self.filter != "none" and len(files) < 2:
            raise UsageError(
                f"A filter chooses among several teachers. Received: {label}.filter={self.filter}, "
                f"{len(files)} teachers"
            )


def losses_of(options: LearningOptions, teachers: int, label: str) -> list[tuple[Loss, float]]:
    """Losses with their weights: `betas` for the last ones, published ones for those before.

    Raises `UsageError` for a name that is not registered, with the nearest one, and for several teachers
    that no loss listens to. `label` is what messages call the step.
    """
    betas = _betas_of(options, teachers, label)
    built = [build(name, **_options(options, name)) for name in options.losses]
    return list(zip(built, betas, strict=True))


def check_losses_of(options: LearningOptions, teachers: int, label: str) -> None:
    """Raises what `losses_of` does, and makes no loss that another step of the same words has made."""
    _betas_of(options, teachers, label)
    for name in options.losses:
        own = _options(options, name)
        _check_options(name, **own | {key: tuple(v) for key, v in own.items() if isinstance(v, list)})


@functools.lru_cache(maxsize=256)
def _check_options(loss: str, **options: Any) -> None:
    build(loss, **options)  # a Keras layer, 2 ms


def _betas_of(options: LearningOptions, teachers: int, label: str) -> list[float]:
    known = [_known(name, f"{label}.distill") for name in options.losses]
    if teachers > 1 and known and not any(loss.reads in ("logits", "all") for loss in known):
        raise UsageError(
            f"Several teachers speak through their logits: add kd. Received: distill={options.distill}, "
            f"{teachers} teachers"
        )
    published = [loss.beta for loss in known]
    return [*published[: len(published) - len(options.betas)], *options.betas]


def learning_of(
    options: LearningOptions,
    losses: Sequence[tuple[Loss, float]],
    teachers: Sequence[Mapping[str, str]],
    labels: str = "cross_entropy",
    numbers: bool = False,
) -> dict[str, Any]:
    """The objective as it is minimised, after all defaults (`options` are settled); plain types.

    `labels` is the loss on labels; of `numbers` kd is the squared difference, which has no options.

    Returns `labels`, `label_weight`, `losses` (name, weight, moves_kernels, options), `teachers` (see
    `described`) and `filter` (by, mean, temperature; None without one).
    """
    chosen = {"by": options.filter, "mean": options.filter_mean, "temperature": options.temperature}
    return {
        "labels": labels,
        "label_weight": options.label_weight,
        "losses": [
            _loss(loss, weight) | ({"options": {}} if numbers and loss.key == "kd" else {})
            for loss, weight in losses
        ],
        "teachers": list(teachers),
        "filter": chosen if options.filter != "none" else None,
    }


def described(path: Path, arch: str = "") -> dict[str, str]:
    """A teacher's file, its sha256, and its architecture where that is not given."""
    return {"file": str(path), "sha256": sha256(path), "arch": arch or _arch(path)}


def _arch(path: Path) -> str:
    """Published files do not say what they hold; a model of one's own has a name."""
    snapshot = load_snapshot(path)
    if arch := (snapshot.spec or {}).get("arch"):
        return arch
    model = nets.load_params(None, snapshot, str(path))
    return model.spec.arch if hasattr(model, "spec") else model.name


def _loss(loss: Loss, weight: float) -> dict[str, Any]:
    """Names of layers are no options of a recipe's losses."""
    names = [name for name in loss.option_names() if not name.endswith("_layer_name")]
    options = {name: loss.get_config()[name] for name in names}
    return {"name": loss.key, "weight": weight, "moves_kernels": loss.moves_kernels, "options": options}


def _known(name: str, label: str) -> type[Loss]:
    try:
        return get_loss(name)
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from error


def _options(options: LearningOptions, loss: str) -> dict[str, object]:
    """What a step says of a loss; all others have their own defaults."""
    blocks = {"teacher_blocks": options.hap_ts}
    kd = {
        "temperature": options.temperature or temperature_for(0),
        "factor": options.kd_factor,
        "mean": options.filter_mean if options.filter != "none" else options.mean,
        "over_classes": options.kd_over_classes,
        "weights": options.teacher_weights or None,
    }
    return {"kd": kd, "kd_std": {"mean": options.mean}, "hap": blocks, "lsp": blocks}.get(loss, {})
