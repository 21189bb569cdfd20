"""A graph is cut where little is alive; together the segments are the graph."""

import keras
import pytest
from hypothesis import given

from secateur import nets
from secateur.nets.graph import trace
from secateur.pruning.search.segments import LONG, MOST_ALIVE, cut_into_segments
from tests.helpers import random_nets, user_models
from tests.pruning.groups.test_random_graphs import hold

L = keras.layers


def makers(segment) -> int:
    return sum(any(len(w.shape) > 1 for w in getattr(c.layer, "weights", ())) for c in segment.calls)


def check(graph) -> list:
    segments = cut_into_segments(graph)
    assert [c for s in segments for c in s.calls] == [c for c in graph.calls if c.kind != "InputLayer"]
    assert (segments[0].sources, segments[-1].targets) == (tuple(graph.inputs), tuple(graph.outputs))
    for one, other in zip(segments, segments[1:], strict=False):
        assert one.targets == other.sources
        inside = set(one.targets) - {*graph.inputs, *graph.outputs}
        assert len(inside) <= MOST_ALIVE
    for segment in segments:
        there = set(segment.sources)
        for call in segment.calls:
            assert there >= set(call.inputs)
            there |= set(call.outputs)
        assert there >= set(segment.targets)
    return segments


@hold(40)
@given(random_nets.nets())
def test_each_segment_makes_what_the_next_one_reads(net):
    check(trace(random_nets.build(*net)))


@pytest.mark.parametrize(("arch", "count"), [("ResNet-56", 29), ("ResNet-50", 18), ("VGG-16", 15)])
def test_where_an_activation_alone_is_alive_it_is_cut(arch, count):
    segments = check(trace(nets.build(arch, input_shape=(32, 32, 3))))
    assert (
        len(segments) == count
    )  # ResNet-56: the stem, and two for each of 27 blocks but the last activation
    assert all(len(s.targets) == 1 and s.calls[-1].kind == "ReLU" for s in segments[:-1])


def stream(join, blocks: int = 12) -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same")(images)
    for _ in range(blocks):
        y = L.Conv2D(4, 1)(L.ReLU()(L.BatchNormalization()(x)))
        y = L.Conv2D(4, 3, padding="same")(L.ReLU()(L.BatchNormalization()(y)))
        x = join()([x, y])
    return keras.Model(images, L.Dense(3)(L.GlobalAveragePooling2D()(L.ReLU()(x))))


@pytest.mark.parametrize("join", [L.Add, L.Concatenate])
def test_a_stream_is_cut_behind_every_block(join):
    segments = check(trace(stream(join)))
    assert max(map(makers, segments)) <= 3 and len(segments) >= 12


def u_net(levels: int = 3) -> keras.Model:
    """Two convolutions at each level on the way down and on the way up; two inputs, the other read last."""
    images, other = keras.Input((16, 16, 3)), keras.Input((16, 16, 2))
    x, skips = images, []

    def level(x):
        for _ in range(2):
            x = L.ReLU()(L.Conv2D(4, 3, padding="same")(x))
        return x

    for _ in range(levels):
        skips.append(level(x))
        x = L.MaxPooling2D()(skips[-1])
    x = level(x)
    for skip in reversed(skips):
        x = level(L.Concatenate()([L.UpSampling2D()(x), skip]))
    return keras.Model([images, other], L.Conv2D(2, 1)(L.Concatenate()([x, other])))


def test_a_u_net_is_cut_though_its_skips_are_alive():
    graph = trace(u_net())
    segments = check(graph)
    assert all(graph.inputs[1] in s.sources for s in segments)
    assert max(map(makers, segments)) <= LONG and len(segments) >= 6


def test_towers_of_two_inputs_are_cut():
    segments = check(trace(user_models.siamese()))
    assert len(segments) == 4
