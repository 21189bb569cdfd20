"""Where to cut a graph, so that a candidate computes little again and little is kept for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from secateur.nets.graph import Call, Graph
from secateur.pruning.layers import is_activation

MOST_ALIVE = 4  # tensors behind a cut
LONG = 5  # layers with kernels that a segment may have before more of them may be alive
PIECE = 2  # layers with kernels that such a segment has at least


@dataclass(frozen=True)
class Segment:
    """Consecutive calls, from the tensors that are alive in front of them to those behind.

    Attributes:
        calls: without those of inputs.
        sources, targets: numbers of these tensors, among them inputs of the model that are still to be read
            and outputs that are there already.
    """

    calls: tuple[Call, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def layers(self) -> list[str]:
        """Names of its layers."""
        return [call.name for call in self.calls]


def cut_into_segments(graph: Graph) -> list[Segment]:
    """Cuts behind each activation after which nothing else is alive, and at the end.

    Segments that are long are cut further: a stream runs beside the branches of pre-activation and dense
    networks, skips beside those of a U-Net. There one tensor of any kind may be alive behind a cut; where
    that is not enough two, and so on. Inputs and outputs of the model always may.
    """
    calls = [call for call in graph.calls if call.kind != "InputLayer"]
    alive = _alive(calls, graph)
    counts = [len({*here} - {*graph.inputs, *graph.outputs}) for here in alive]
    ends = {0, len(calls)}
    ends |= {
        i for i, call in enumerate(calls, 1) if counts[i] == 0 or (counts[i] == 1 and is_activation(call))
    }
    for most in range(1, MOST_ALIVE + 1):
        ends |= {i for start, end in pairwise(sorted(ends)) for i in _pieces(calls, counts, start, end, most)}
    return [Segment(tuple(calls[a:b]), alive[a], alive[b]) for a, b in pairwise(sorted(ends))]


def _alive(calls: Sequence[Call], graph: Graph) -> list[tuple[int, ...]]:
    """Tensors that are made and still to be read, in front of each call and at the end."""
    last = {tensor: i for i, call in enumerate(calls) for tensor in call.inputs}
    last |= dict.fromkeys(graph.outputs, len(calls))
    alive, found = {*graph.inputs}, [tuple(graph.inputs)]
    for i, call in enumerate(calls):
        alive = {t for t in alive | {*call.outputs} if last.get(t, -1) > i}
        found.append(tuple(sorted(alive)))
    return [*found[:-1], tuple(graph.outputs)]


def _pieces(calls: Sequence[Call], counts: list[int], start: int, end: int, most: int) -> Iterator[int]:
    """Where else to cut between two cuts, with at most this many tensors alive."""
    makers = [any(len(w.shape) > 1 for w in getattr(call.layer, "weights", ())) for call in calls[start:end]]
    if sum(makers) <= LONG:
        return
    inside = 0
    for i, maker in enumerate(makers, start + 1):
        inside += maker
        if inside >= PIECE and counts[i] <= most and i < end:
            yield i
            inside = 0
