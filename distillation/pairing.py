"""Which kernels of a student answer to which of a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from secateur import nets


def convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers with a kernel (h, w, in, filters), also in models within, from the input on.

    Depthwise and transposed convolutions, whose kernels are no rows of filters, are left out.
    """
    found: list[keras.layers.Layer] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += convolutions(layer)
        elif isinstance(layer, (keras.layers.Conv2D, nets.MaskedConv2D)):
            found += [layer] if isinstance(layer.kernel, keras.Variable) else []  # not under LoRA
    return list(dict.fromkeys(found))


def partners(student: Sequence[tuple[int, int]], teacher: Sequence[tuple[int, int]]) -> list[int]:
    """For each convolution of the student the one of the teacher at the same relative depth.

    Args:
        student, teacher: (h, w) of the kernels, from the input on; at least one of the teacher's.

    Sizes count apart, so that 1×1 answers to 1×1, one to one where there are as many; a size that the teacher
    has not is placed among all of its convolutions. Returns indexes into `teacher`.
    """
    found = [0] * len(student)
    for size in dict.fromkeys(student):
        own = [i for i, other in enumerate(student) if other == size]
        taught = [i for i, other in enumerate(teacher) if other == size] or range(len(teacher))
        for rank, i in enumerate(own):
            found[i] = taught[round(rank * (len(taught) - 1) / max(len(own) - 1, 1))]
    return found
