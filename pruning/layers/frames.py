"""TimeDistributed: what its layer is, for every frame of a sequence."""

from __future__ import annotations

import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.layout import own_axis
from secateur.pruning.layers.registry import Cut, Place, cost_of, find, layer_class, of_a_frame, sized
from secateur.pruning.layers.shaping import moved


def _label(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    inner = of_a_frame(call)
    if (known := find(inner.kind)) is None:
        return f"{inner.kind} is not understood"
    if known.label is moved:
        return moved(state, call, labels)
    if own_axis(inner) is not None:
        return "its channels are not at the end"
    if any(vector.shape[0] != 1 for vector in labels):
        return "its inputs are not frames alike"
    made = known.label(state, inner, [vector[0] for vector in labels])
    return made if isinstance(made, str) else [vector[None] for vector in made]


def _resize(config: dict, call: Call, left: Cut) -> dict:
    inner, stored = of_a_frame(call), config["layer"]
    if (known := find(inner.kind)) is None:
        return config
    of_one = Cut(tuple(sizes[1:] for sizes in left.inputs), tuple(sizes[1:] for sizes in left.outputs))
    kept = {key: value for key, value in stored.items() if key != "build_config"}  # it has the old shapes
    return config | {"layer": kept | {"config": known.resized(stored["config"], inner, of_one)}}


def _sized(call: Call) -> list[Place] | None:
    places = sized(of_a_frame(call))
    return places and [(x, axis + (axis > 0 and not isinstance(x, str))) for x, axis in places]


def _cost(rule: Convention, call: Call, *sizes: int) -> tuple[int, int]:
    if (cost := cost_of(inner := of_a_frame(call))) is None:
        return 0, 0
    params, operations = cost(rule, inner, *sizes)
    return params, operations * call.input_shapes[0][1]


layer_class("TimeDistributed", label=_label, resize=_resize, cost=_cost, sized=_sized)
