"""The ResNet-56 step in PyTorch, channels_last: a peer for `benchmarks.train_step`. Needs torch only."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BLOCKS, WIDTHS, PAD = 9, (16, 32, 64), 4


def _conv_bn(n_in: int, n_out: int, size: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv_bn(n_in, n_out, 3, stride), _conv_bn(n_out, n_out, 3, 1)
        self.shortcut = _conv_bn(n_in, n_out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(F.relu(self.first(x), inplace=True))
        return F.relu(y + self.shortcut(x), inplace=True)


def resnet56(num_classes: int = 10) -> nn.Module:
    """Images (b, 3, h, w) → logits; 855,770 parameters, as ours with shortcut B."""
    layers, width = [_conv_bn(3, WIDTHS[0], 3, 1), nn.ReLU(inplace=True)], WIDTHS[0]
    for stage, n_out in enumerate(WIDTHS):
        for i in range(BLOCKS):
            layers.append(_Block(width, n_out, 2 if stage and not i else 1))
            width = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def crop_flip_normalise(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """uint8 (b, h, w, 3) → float (b, 3, h, w) channels_last: reflect pad, crop, flip in one gather."""
    b, h, w, _ = images.shape
    rows = torch.arange(h) + torch.randint(-PAD, PAD + 1, (b, 1))
    columns = torch.arange(w) + torch.randint(-PAD, PAD + 1, (b, 1))
    columns = torch.where(torch.rand(b, 1) < 0.5, columns.flip(1), columns)
    rows, columns = (n - 1 - ((n - 1) - p.abs()).abs() for p, n in ((rows, h), (columns, w)))
    cropped = images[torch.arange(b)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return ((cropped.float() - mean) / std).permute(0, 3, 1, 2)  # NHWC in memory is channels_last


def make_step(
    batch: Mapping[str, np.ndarray],
    mean: Sequence[float],
    std: Sequence[float],
    rate: float,
    momentum: float,
    decay: float,
) -> Callable[[], float]:
    """f() → loss: one step on all cores."""
    torch.set_num_threads(os.cpu_count())
    model = resnet56().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(), rate, momentum=momentum, weight_decay=decay, nesterov=True, fused=True
    )
    mean, std = torch.tensor(mean), torch.tensor(std)

    def step() -> float:
        images, labels = torch.from_numpy(batch["images"]), torch.from_numpy(batch["labels"]).long()
        x = crop_flip_normalise(images, mean, std)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
