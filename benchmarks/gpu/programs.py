"""StableHLO text as a function that JAX can call, compose and loop over. JAX and NumPy alone.

TensorFlow writes StableHLO text; JAX calls programs that `jax.export` has written. Both are one language, so
a program of TensorFlow takes the place of the one in an `Exported` object of the same signature.
"""

from __future__ import annotations

import dataclasses
import gzip
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
from jaxlib.mlir.dialects import stablehlo

Signature = Sequence[Mapping]  # one {"shape", "dtype"} per tensor


def load_program(path: Path, arguments: Signature, results: Signature, precision: str = "tf32") -> Callable:
    """The program of a file as f(*arrays) → list of arrays, to be called inside and outside of `jax.jit`.

    Args:
        path: gzipped StableHLO text with one function "main" of tensors.
        arguments, results: of "main", in their order.
        precision: of products and convolutions of float32: "tf32" is what DEFAULT means on GPUs that have it
            (as in TensorFlow), "float32" asks for all bits.
    """
    text = gzip.decompress(path.read_bytes()).decode()
    if calls := sorted(set(re.findall(r"custom_call @(\w+)", text))):
        raise ValueError(
            f"{path.name} calls functions of the platform it was exported on: {', '.join(calls)}"
        )
    exported = dataclasses.replace(
        _placeholder(arguments, results),
        fun_name=path.name.partition(".")[0],
        mlir_module_serialized=stablehlo.serialize_portable_artifact_str(
            with_precision(text, precision), stablehlo.get_minimum_version()
        ),
    )
    return lambda *arrays: exported.call(*arrays)


def with_precision(text: str, precision: str) -> str:
    """StableHLO text whose products and convolutions have one precision throughout."""
    wanted = {"tf32": "DEFAULT", "float32": "HIGHEST"}[precision]
    text = re.sub(r"<precision \w+>", f"<precision {wanted}>", text)  # of convolutions
    return re.sub(r"\bprecision = \[\w+, \w+\]", f"precision = [{wanted}, {wanted}]", text)


def _placeholder(arguments: Signature, results: Signature) -> jax.export.Exported:
    """An exported function of that signature, which returns zeros."""
    shapes = [jax.ShapeDtypeStruct(tuple(a["shape"]), a["dtype"]) for a in arguments]

    def zeros(*_):
        return [jnp.zeros(r["shape"], r["dtype"]) for r in results]

    # Without `keep_unused` the signature would lose every argument, since none matters to the zeros.
    return jax.export.export(jax.jit(zeros, keep_unused=True))(*shapes)
