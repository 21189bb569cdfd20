"""The jobs of `benchmarks.torch_pruning` for Torch-Pruning. Needs torch and torch_pruning, or timm too."""

from __future__ import annotations

import copy
import importlib
import os
import time
from collections.abc import Callable

import torch
import torch_pruning
from torch import nn

from benchmarks.torch_resnet import resnet56

SIDE, SIDE_OF_TIMM = 32, 64
TIMM = {
    "MobileNetV2": "mobilenetv2_100",
    "ResNet50": "resnet50",
    "DenseNet121": "densenet121",
    "EfficientNetB0": "efficientnet_b0",
    "ConvNeXtTiny": "convnext_tiny",
}
VGG16 = (64, 64, "pool", 128, 128, "pool", *(256,) * 3, "pool", *(512,) * 3, "pool", *(512,) * 3, "pool")


def torch_net(name: str, classes: int) -> nn.Module:
    """The same network in PyTorch."""
    if name in TIMM:
        return importlib.import_module("timm").create_model(TIMM[name], pretrained=False).eval()
    if name == "ResNet-56":
        return resnet56(classes).eval()
    layers, width = [], 3
    for size in VGG16:
        if size == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(width, size, 3, padding=1), nn.ReLU(inplace=True)]
            width = size
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, classes)).eval()


def job(name: str, classes: int, keep: float, steps: int) -> Callable[[], dict]:
    """One run: seconds and the share of operations kept. It works in place; copying is not timed."""
    torch.set_num_threads(os.cpu_count())
    side = SIDE_OF_TIMM if name in TIMM else SIDE
    model, example = torch_net(name, classes), torch.randn(1, 3, side, side)
    prune(copy.deepcopy(model), example, 0.5, keep, 1)  # warms up
    ratio = _ratio(model, example, keep) if steps == 1 else 1.0

    def run() -> dict:
        net = copy.deepcopy(model)
        start = time.perf_counter()
        kept = prune(net, example, ratio, keep, steps)
        return {"seconds": time.perf_counter() - start, "kept": kept}

    return run


def prune(net: nn.Module, example: torch.Tensor, ratio: float, keep: float, steps: int) -> float:
    """Prunes in place until the target is met or the steps are over; the share of the operations left."""
    count = torch_pruning.utils.count_ops_and_params
    dense, _ = count(net, example)
    pruner = torch_pruning.pruner.MagnitudePruner(
        net,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=ratio,
        iterative_steps=steps,
        ignored_layers=[net.get_classifier() if hasattr(net, "get_classifier") else net[-1]],
    )
    kept = 1.0
    for _ in range(steps):
        if kept <= keep:
            break
        pruner.step()
        kept = count(net, example)[0] / dense
    return kept


def _ratio(model: nn.Module, example: torch.Tensor, keep: float) -> float:
    """The smallest ratio of channels to remove in one step that meets the target, to a hundredth."""
    low, high = 0, 100
    while high - low > 1:
        middle = (low + high) // 2
        met = prune(copy.deepcopy(model), example, middle / 100, keep, 1) <= keep
        low, high = (low, middle) if met else (middle, high)
    return high / 100
