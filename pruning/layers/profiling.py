"""Multiply-accumulates of what TensorFlow runs, by its own profiler: a count that knows nothing of layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

COUNTED = ["Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchMatMul.*"]
HIDING = {
    "While", "StatelessWhile", "Enter", "If", "StatelessIf", "Switch", "PyFunc", "EagerPyFunc", "XlaLaunch",
}  # fmt: skip
CALLS = {"StatefulPartitionedCall", "PartitionedCall"}


def profiled(model: keras.Model) -> int:
    """Multiply-accumulates of a functional model for one sample, of its frozen graph.

    Sums, activations and normalisations are no part of it. Raises `ValueError` for a loop, whose number of
    turns is in no graph, and for open sizes.
    """
    structure = [tf.TensorSpec((1, *x.shape[1:]), x.dtype) for x in model.inputs]
    return macs_of(lambda *xs: model(xs if len(xs) > 1 else xs[0], training=False), structure)


def macs_of(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> int:
    """Those of a function of tensors with these shapes. Raises `ValueError` as `profiled` does."""
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    return _counted(convert_variables_to_constants_v2(concrete).graph)


def _counted(graph: tf.Graph) -> int:
    operations = graph.get_operations()
    if op := next((op for op in operations if op.type in HIDING), None):
        raise ValueError(f"what {op.type} computes is in no graph")
    for op in operations:
        if re.fullmatch("|".join(COUNTED), op.type):
            list(map(_sizes, op.outputs))
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_accounted_types(COUNTED).with_empty_output().build()
    found = tf.compat.v1.profiler.profile(graph, options=options)
    own = (found.total_float_ops if found else 0) // 2 + sum(_unknown_to_the_profiler(graph))
    return own + sum(_counted(_called(op)) for op in operations if op.type in CALLS)


def _called(op: tf.Operation) -> tf.Graph:
    """What a call computes: Keras compiles convolutions of groups alone, which CPUs need XLA for."""
    name = op.get_attr("f").name
    functions = op.graph.as_graph_def().library.function
    body = next(function for function in functions if function.signature.name == name)
    return function_def_to_graph(body, input_shapes=[x.shape for x in op.inputs])


def _unknown_to_the_profiler(graph: tf.Graph) -> Iterator[int]:
    for op in graph.get_operations():
        if op.type == "Einsum":
            terms, sizes = op.get_attr("equation").decode().partition("->")[0].split(","), {}
            for term, tensor in zip(terms, op.inputs, strict=True):
                sizes |= dict(zip(term, _sizes(tensor), strict=True))
            yield prod(sizes.values()) if len(terms) > 1 else 0
        elif op.type == "Conv3DBackpropInputV2":
            kernel, read = _sizes(op.inputs[1]), _sizes(op.inputs[2])
            yield prod(kernel) * prod(read) // kernel[-1]


def _sizes(tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.name} has an open size")
    return tensor.shape.as_list()
