"""Random functional networks: a list of steps that hypothesis draws and shortens, and the net that it builds.

Each step takes one tensor of those made so far (0 is the newest), maybe another, and a number from 1 to 4.
"""

from __future__ import annotations

import keras
import numpy as np
from hypothesis import strategies as st

from secateur.nets.graph import trace
from tests.helpers import random_blocks  # noqa: F401  adds its steps to MOVES
from tests.helpers.random_steps import MOVES, SIDES, Net

# Where another axis is as long as the batch, `keras.ops.add` takes a tensor with one value per example for a
# bias, and adds it along that axis (Keras 3.15): no axis here is.
EXAMPLES = 29
Step = tuple[str, int, int, int]


def nets() -> st.SearchStrategy[tuple[int, tuple[Step, ...]]]:
    """(spatial axes, steps): the arguments of `build`."""
    index = st.integers(0, 5)
    step = st.tuples(st.sampled_from(sorted(MOVES)), index, index, st.integers(1, 4))
    return st.tuples(st.sampled_from(sorted(SIDES)), st.lists(step, min_size=4, max_size=10).map(tuple))


def build(rank: int, steps: tuple[Step, ...], seed: int = 0) -> keras.Model:
    """A model with weights and statistics as of a trained one. Steps that fit no tensor are left out."""
    net = Net(rank)
    for move, first, second, n in steps:
        pick, other = net.made[-1 - first % len(net.made)], net.made[-1 - second % len(net.made)]
        made = MOVES[move](net, pick, other, n)
        net.made += [made] if isinstance(made, keras.KerasTensor) else made or []
    inputs = net.inputs if len(net.inputs) > 1 else net.inputs[0]
    model = keras.Model(inputs, net.heads(sum(step[3] for step in steps)))
    randomise(model, np.random.default_rng(seed))
    return model


def randomise(model: keras.Model, rng: np.random.Generator) -> None:
    """Every weight and statistic different from its initial value, activations of size 1."""
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            variable.assign(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape))
        elif variable.name in ("gamma", "moving_variance", "variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif variable.name != "count":
            variable.assign(rng.normal(0, 0.3, shape))
    for layer in trace(model).layers.values():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def batch_of(model: keras.Model, rng: np.random.Generator) -> list[np.ndarray]:
    """Examples for each input: small integers where the input is one of tokens."""
    return [
        rng.integers(0, 7, (EXAMPLES, *x.shape[1:])).astype("int32")
        if x.dtype == "int32"
        else rng.normal(0, 1, (EXAMPLES, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
