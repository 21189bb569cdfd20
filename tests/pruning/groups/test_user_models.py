"""Models as users write them: which layers share channels, what stays, why; masked = compact = reloaded."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from secateur.pruning import compact, complexity, make_plan, mask
from secateur.pruning.groups.analysis import analyse
from tests.helpers import random_nets, user_models
from tests.pruning.groups.test_random_graphs import assert_close, outputs

REACH = {  # model → its groups (who makes their channels) and what stays (why)
    "u_net": (
        ["enc1", "enc2", "bottom", "up2", "dec2", "up1", "dec1"],
        {"pixels": "it is an output of the model"},
    ),
    "inception": (
        ["stem", "one", "three_reduce", "three", "pool_project"],
        {"classes": "classes: its softmax mixes channels"},
    ),
    "dense_net": (
        ["stem", "grow0", "grow1", "grow2", "transition"],
        {"classes": "it is an output of the model"},
    ),
    "inverted_residual": (
        ["stem project", "expand excite", "squeeze"],
        {"classes": "it is an output of the model"},
    ),
    "siamese": (
        ["tower/conv", "tower/embed", "compare"],
        {"same": "it is an output of the model"},
    ),
    "detector": (
        ["c3", "p3 p4", "c4", "head/tower"],
        {"class_of": "it is an output of the model", "box_of": "it is an output of the model"},
    ),
    "gated_conv1d": (
        ["front out0 out1", "filter0 gate0", "filter1 gate1"],
        {"classes": "it is an output of the model"},
    ),
    "conv3d": (["conv1", "conv2", "hidden"], {"risk": "it is an output of the model"}),
    "digits": (["conv1", "conv2"], {"classes": "classes: its softmax mixes channels"}),
    "transfer": (["backbone/conv", "hidden"], {"classes": "it is an output of the model"}),
    "vision_transformer": (
        ["patches attention mlp2", "attention", "attention", "attention", "mlp1", "head"],
        {"classes": "it is an output of the model"},
    ),
    "recurrent": (
        ["words", "lstm", "gru", "hidden"],
        {"mood": "it is an output of the model"},
    ),
}


def made(name: str, seed: int = 0) -> tuple[keras.Model, list[np.ndarray]]:
    model, rng = getattr(user_models, name)(), np.random.default_rng(seed)
    random_nets.randomise(model, rng)
    return model, random_nets.batch_of(model, rng)


@pytest.mark.parametrize("name", REACH)
def test_groups_and_what_stays(name):
    analysis = analyse(made(name)[0])
    groups, whole = REACH[name]
    assert [" ".join(group.layers("producer")) for group in analysis.groups] == groups
    assert {", ".join(row.layers): row.reason for row in analysis.untouched} == whole


@pytest.mark.parametrize("name", REACH)
def test_half_of_the_channels(name, tmp_path):
    model, batch = made(name)
    plan = make_plan(model, keep=0.5)
    masked, small = outputs(mask(model, plan), batch), compact(model, plan)
    assert_close(masked, outputs(small, batch))
    assert complexity(small, "ekg").params == small.count_params() < model.count_params()
    small.save(tmp_path / "small.keras")
    assert_close(masked, outputs(keras.models.load_model(tmp_path / "small.keras"), batch))


FRESH = """
import sys, numpy as np
sys.path[:] = [p for p in sys.path if "site-packages" in p or "/lib/python" in p or p.endswith(".zip")]
import keras
model = keras.models.load_model("small.keras")
np.save("theirs.npy", model(np.load("batch.npy"), training=False))
assert not {"nets", "pruning", "runs"} & set(sys.modules)
"""


def test_a_nested_model_loads_without_this_project(tmp_path):
    model, (batch,) = made("transfer")
    small = compact(model, make_plan(model, keep=0.5))
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "batch.npy", batch)
    subprocess.run([sys.executable, "-I", "-P", "-c", FRESH], cwd=tmp_path, check=True, timeout=300)
    assert_close([np.load(tmp_path / "theirs.npy")], outputs(small, [batch]))


def test_a_frozen_backbone_keeps_its_statistics_in_training():
    model, batch = made("transfer")
    small = compact(model, make_plan(model, keep=0.5))
    assert not small.get_layer("bn").trainable
    before = small.get_layer("bn").moving_mean.numpy()
    small(np.stack(batch[0]), training=True)
    assert np.array_equal(before, small.get_layer("bn").moving_mean.numpy())


def test_skip_concatenations_are_read_at_their_places():
    analysis = analyse(made("u_net")[0])
    read = {
        group.name: member.index
        for group in analysis.groups
        for member in group.members
        if (member.layer, member.role) == ("dec1", "consumer")
    }
    assert read["up1"].tolist() == [*range(8), *[-1] * 8]
    assert read["enc1"].tolist() == [*[-1] * 8, *range(8)]


def test_a_shared_tower_is_counted_twice_and_stored_once():
    model, _ = made("siamese")
    rows = {row.name: row for row in complexity(model).layers}
    assert rows["tower/conv"].params == 3 * 3 * 3 * 8 + 8
    assert rows["tower/conv"].macs == 2 * 6 * 6 * 3 * 3 * 3 * 8
