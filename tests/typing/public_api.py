"""Every public name, used as a user would: mypy compares the types, nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np

import secateur
from secateur import callbacks, coding, dataloader, distillation, nets, pruning
from secateur.coding.file.array_file import Summary
from secateur.nets.spec import NetSpec
from secateur.pruning.count.counting import Complexity


def networks() -> Any:
    assert_type(secateur.__version__, str)
    assert_type(nets.list_nets("ResNet-*"), list[str])
    net = nets.build("ResNet-56", num_classes=10, shortcut="B")
    nets.build(NetSpec("VGG-16", head="single"))
    nets.load_params(net, Path("snapshot.pkl"))
    return nets.load_params(None, "snapshot.pkl")


def images() -> dataloader.Images:
    splits = dataloader.load("CIFAR10", data_path=None)
    assert_type(splits, dataloader.Splits)
    assert_type(splits.facts, dataloader.Facts)
    assert_type(splits.train.labels, Any)
    return splits.test


def smaller(model: Any) -> Any:
    groups = pruning.find_groups(model)
    assert_type(groups, list[pruning.ChannelGroup])
    assert_type(pruning.complexity(model, convention="ekg"), Complexity)
    assert_type(pruning.complexity(model).macs, int)
    assert_type(pruning.list_criteria(), list[str])
    assert_type(pruning.summary(model), str)
    plan = pruning.make_plan(model, criterion="l1", keep_macs=0.5, round_to=8)
    assert_type(plan, pruning.Plan)
    pruning.make_plan(model, keep=0.6)
    pruning.make_plan(model, "taylor", keep_params=0.5, data=(np.zeros((8, 32, 32, 3)), np.zeros(8)))
    pruning.make_plan(model, max_ms=3.0)
    pruning.mask(model, plan)
    return pruning.compact(model, plan)


def layers(own: type) -> None:
    secateur.register_layer(own, follows={"gain": -1}, activation=True)


@pruning.criterion
def own_criterion(filters: np.ndarray) -> np.ndarray:
    return np.abs(filters).max(axis=1)


@distillation.register
class OwnLoss(distillation.Loss):
    key = "own_loss"

    def compare(self, teacher: Any, student: Any) -> Any:
        return teacher - student


def taught(student: Any, teacher: Any) -> distillation.Lesson:
    loss = distillation.build("kd", temperature=4)
    assert_type(loss, distillation.Loss)
    loss.compute_loss(teacher, student)
    assert_type(distillation.list_losses(), list[str])
    several = distillation.ensemble(["a.pkl", Path("b.pkl"), teacher])
    assert_type(several, distillation.Teacher)
    return distillation.Lesson(student, several, [(loss, 0.9)])


def fitted(model: Any, teacher: Any) -> Any:
    gradual = callbacks.GradualPruning("l1", keep_macs=0.5, end=10, every=2, unit="steps", round_to=8)
    assert_type(gradual.plan, pruning.Plan | None)
    held = secateur.callbacks.HoldPruned(pruning.make_plan(model, keep=0.5, within=gradual.plan))
    distiller = callbacks.Distiller(model, teacher, ["kd", ("at", 10.0)], label_weight=0.5)
    distiller.fit([], callbacks=[gradual, held])
    return distiller.student


def stored(model: Any) -> Any:
    done = coding.encode(model, "small.kpz", bits=5)
    assert_type(done, Summary)
    assert_type(done.file, int)
    return coding.decode(Path("small.kpz"))
