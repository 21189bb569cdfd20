"""How somebody's own model reads pixels: as it says, as the user says, or as it gets most images right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader import Facts, Splits
from secateur.dataloader.pipelines import PIXELS, Pipeline
from secateur.dataloader.registry import renormalised
from secateur.dataloader.sources import memory
from secateur.nets.endings import logits_of
from secateur.nets.graph import trace
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.subject import Subject
from secateur.runs.errors import UsageError, warn

TRIED = 512  # training images that say which range is the right one
AT_A_TIME = 64
CLEARLY = 0.1  # more of them: another range is meant
BY_CHANCE = 3  # standard deviations of guessing that a trained model is above it
CLOSE = 2  # standard errors of an accuracy that another range is behind it
OPERATIONS = {"ops.Multiply", "ops.Divide", "ops.TrueDivide", "ops.Subtract", "ops.Add"}


def resolve_pixels(subject: Subject, splits: Splits, options: RunOptions, stated: bool = False) -> Splits:
    """The images with the constants that the model needs; says in a line which, where it has found them.

    A model that rescales its inputs itself reads 0..255. Any other one is shown training images in every
    range, unless options or a snapshot (`stated`) say which. Raises `UsageError` for a classifier that gets
    them right no better than by chance, or clearly worse than in another range: training would ruin it.
    """
    if subject.original is None or options.from_scratch:
        return splits
    facts = splits.facts
    known_range = stated or bool(options.constants) or options.normalisation != "auto" or not facts.colours
    if not (subject.classifies and facts.labelled):
        if not known_range and not rescales(subject.original):
            warn("the model does not rescale its images: they are 0..255 unless --pixels says otherwise")
        return splits
    known = candidates(facts)
    view = subject.shown(options.images, facts.shape)
    right = _accuracies(subject, splits, known, view)
    name = facts.normalisation
    if not known_range and not rescales(subject.original):
        name = max(right, key=right.get)
        print(f"pixels: {name}; {_text(right)} of {_count(splits)} training images right")
        if close := as_good(right, name, _count(splits)):
            warn(f"{' and '.join(close)} would fit about as well: say by --pixels what the model reads")
    chance = _highest_by_chance(facts.num_classes, _count(splits))
    better = [one for one in right if right[one] > max(right[name] + CLEARLY, chance)]
    if (better or right[name] <= chance) and not options.force:
        raise UsageError(_misread(name, right, better, facts.num_classes, _count(splits)))
    return replace(splits, facts=known[name])


def rescales(model: keras.Model) -> bool:
    """Whether it shifts or scales its inputs before a layer with a kernel reads them."""
    graph = trace(model)
    seen = set(graph.inputs)
    for call in graph.calls:
        if not seen.intersection(call.inputs):
            continue
        if call.kind in ("Rescaling", "Normalization") or (call.kind in OPERATIONS and call.constants):
            return True
        if not getattr(call.layer, "trainable_variables", None) and call.kind not in OPERATIONS:
            seen.update(call.outputs)
    return False


def candidates(facts: Facts) -> dict[str, Facts]:
    """Normalisation → facts: what stands already, what belongs to the data set, and all ranges.

    Numbers that are no bytes are read as they are. A folder has no constants of its own: those that stand in
    for them are a range, which is tried once.
    """
    found = {facts.normalisation: facts}
    if facts.colours:
        ranges = {name: renormalised(facts, name) for name in PIXELS}
        own = None if facts.name == memory.NAME else renormalised(facts, "rgb")
        if own and not any(_alike(own, one) for one in ranges.values()):
            found["rgb"] = own
        found |= ranges
    return found


def _alike(one: Facts, other: Facts) -> bool:
    """Whether a network reads the same numbers by both."""
    return (one.mean, one.std, one.exchanged) == (other.mean, other.std, other.exchanged)


def _count(splits: Splits) -> int:
    return min(TRIED, len(splits.train))


def _accuracies(
    subject: Subject, splits: Splits, known: Mapping[str, Facts], view: Pipeline
) -> dict[str, float]:
    """Share of some training images that the model gets right, by normalisation."""
    train, bare = splits.train, logits_of(subject.original)
    chosen = np.random.default_rng(0).permutation(len(train))[: _count(splits)]
    parts = [train.images[some] for some in np.array_split(chosen, -(-len(chosen) // AT_A_TIME))]
    forward = tf.function(lambda x: bare(x, training=False))

    def right(facts: Facts) -> float:
        found = [forward(subject.reads(part, facts, view)).numpy() for part in parts]
        return subject.task.score(train.labels[chosen], np.concatenate(found))

    return {name: right(facts) for name, facts in known.items()}


def as_good(right: Mapping[str, float], best: str, count: int) -> list[str]:
    """Other ranges in which `count` images say no less for the model, within what chance does to a share."""
    share = min(right[best], 1 - 1 / count)  # of all right the next image may be wrong
    least = right[best] - CLOSE * np.sqrt(share * (1 - share) / count)
    return [name for name, value in right.items() if name != best and value >= least]


def _highest_by_chance(classes: int, count: int) -> float:
    share = 1 / classes
    return share + BY_CHANCE * np.sqrt(share * (1 - share) / count)


def _text(right: Mapping[str, float]) -> str:
    best = sorted(right, key=right.get, reverse=True)[:3]
    return ", ".join(f"{name} {100 * right[name]:.1f} %" for name in best)


def _misread(name: str, right: Mapping, better: Sequence[str], classes: int, count: int) -> str:
    best = sorted(better, key=right.get, reverse=True)
    remedy = (
        f"better: {', '.join(f'--pixels {one} {100 * right[one]:.1f} %' for one in best)}; --force goes on"
        if better
        else "are its classes in the order of the labels? --force goes on; secateur train has --from_scratch"
    )
    return (
        f"The model gets {100 * right[name]:.1f} % of {count} training images right, guessing "
        f"{100 / classes:.1f} %. Received: pixels={name}\n{remedy}"
    )
