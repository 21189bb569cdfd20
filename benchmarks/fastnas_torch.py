"""FastNAS and its fine-tuning, the peer of `benchmarks.fastnas`. Needs torch and nvidia-modelopt.

python -m benchmarks.fastnas_torch IMAGES.npz OUT.json --weights NET.safetensors --macs 29.6e6 …
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import modelopt.torch.prune as prune
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

WIDTHS, BATCH, PAD = (16, 32, 64), 128, 4


class _Shorter(nn.Module):
    """Every second pixel, and zeros for the channels that are new: He et al.'s option A."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.conv1, self.bn1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.bn2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        self.shortcut = nn.Identity() if n_in == n_out else _Shorter(n_out - n_in)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """Images (b, 3, 32, 32) → logits (b, 10), with the names of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        befores = (WIDTHS[0], *WIDTHS[:-1])
        for i, (before, width) in enumerate(zip(befores, WIDTHS, strict=True), 1):
            blocks = [_Block(before, width), _Block(width, width), _Block(width, width)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


class Data:
    """Images uint8 (n, 32, 32, 3) with labels, from the parent's file; batches as the network reads them."""

    def __init__(self, path: Path) -> None:
        self.arrays = dict(np.load(path))
        self._mean, self._std = (torch.tensor(self.arrays[name]).float() for name in ("mean", "std"))

    def read(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        return ((torch.as_tensor(images).float() - self._mean) / self._std).permute(0, 3, 1, 2)

    def batches(self, split: str, size: int = 256):
        images, labels = self.arrays[f"{split}_images"], self.arrays[f"{split}_labels"]
        for i in range(0, len(labels), size):
            yield self.read(images[i : i + size]), torch.tensor(labels[i : i + size]).long()

    def augmented(self, rng: np.random.Generator):
        """One epoch: zeros around every image, a random crop, mirrored or not."""
        images, labels = self.arrays["train_images"], self.arrays["train_labels"]
        order = rng.permutation(len(labels))
        for i in range(0, len(order) - BATCH + 1, BATCH):
            some = order[i : i + BATCH]
            crops = _cropped(self.read(images[some]), rng)
            yield crops, torch.tensor(labels[some]).long()


def _cropped(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    b, _, h, w = images.shape
    padded = F.pad(images, (PAD,) * 4)
    rows = torch.arange(h) + torch.tensor(rng.integers(0, 2 * PAD + 1, (b, 1)))
    columns = torch.arange(w) + torch.tensor(rng.integers(0, 2 * PAD + 1, (b, 1)))
    mirrored = torch.tensor(rng.random((b, 1)) < 0.5)
    columns = torch.where(mirrored, columns.flip(1), columns)
    of_image = torch.arange(b)[:, None, None]
    return padded.permute(0, 2, 3, 1)[of_image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(net: nn.Module, data: Data, split: str) -> float:
    """Share of a split's images that are classified rightly, in [0, 1]."""
    net.eval()
    right = [(net(x).argmax(1) == y).float() for x, y in data.batches(split)]
    return torch.cat(right).mean().item()


@torch.no_grad()
def reestimate(net: nn.Module, data: Data, images: int = 5120) -> None:
    """BatchNorm's averages as means over batches of training images."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    net.train()
    for i, (x, _) in enumerate(data.batches("train")):
        if i * 256 >= images:
            break
        net(x)
    for norm in norms:
        norm.momentum = 0.1


def search(net: nn.Module, data: Data, keep_macs: float, divisor: int, folder: Path) -> nn.Module:
    """The network that FastNAS leaves of so many operations; the hold-out is its score.

    Its "flops" count two for a multiply-accumulate; a ratio needs no convention.
    """
    ratios = {"channels_ratio": tuple(0.05 * i for i in range(1, 21)), "channel_divisor": divisor}
    features = {"features_ratio": ratios["channels_ratio"], "feature_divisor": divisor}
    rules = {"nn.Conv2d": {"*": {**ratios, "kernel_size": ()}}, "nn.BatchNorm2d": {"*": features}}
    rules["nn.Linear"] = {"*": features}
    config = {
        "data_loader": [x for x, _ in data.batches("train")][:20],
        "collect_func": lambda x: x,
        "score_func": lambda model: accuracy(model, data, "holdout"),
        "checkpoint": str(folder / "search.pth"),
    }
    example = torch.zeros(1, 3, 32, 32)
    return prune.prune(net, [("fastnas", rules)], {"flops": f"{100 * keep_macs}%"}, example, config)[0]


def fine_tune(net: nn.Module, data: Data, epochs: int, one_cycle: bool, rate: float, seed: int) -> None:
    """SGD as EKG fine-tunes: Nesterov, decay 5e-4, rate times 0.2 at 30, 60 and 80 %; or one cycle."""
    steps = epochs * (len(data.arrays["train_labels"]) // BATCH)
    rule = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    if one_cycle:
        plan = torch.optim.lr_scheduler.OneCycleLR(
            rule, rate, steps, pct_start=0.3, div_factor=10, final_div_factor=100,
            anneal_strategy="linear", cycle_momentum=False,
        )  # fmt: skip
    else:
        points = [int(steps * share) for share in (0.3, 0.6, 0.8)]
        plan = torch.optim.lr_scheduler.MultiStepLR(rule, points, 0.2)
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        net.train()
        for x, y in data.augmented(rng):
            rule.zero_grad()
            F.cross_entropy(net(x), y).backward()
            rule.step()
            plan.step()
        print(f"epoch {epoch + 1}/{epochs}: hold-out {accuracy(net, data, 'holdout'):.4f}", flush=True)


def macs_of(net: nn.Module) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image."""
    total, hooks = 0, []

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        per_output = module.weight[0].numel()
        total += per_output * output[0].numel()

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            hooks.append(module.register_forward_hook(count))
    net.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return total


def main() -> None:
    """argv → a JSON with seconds of the search, operations and accuracies."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fastnas_torch", description=__doc__.splitlines()[0]
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--macs", type=float, required=True)
    parser.add_argument("--divisor", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--one_cycle", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(args.seed)
    data, net = Data(args.images), ResNet20()
    net.load_state_dict(load_file(args.weights))
    found = {"dense_test": accuracy(net, data, "test"), "dense_macs": macs_of(net)}
    start = time.perf_counter()
    net = search(net, data, args.macs / found["dense_macs"], args.divisor, args.out.parent)
    found |= {"search_seconds": time.perf_counter() - start, "macs": macs_of(net)}
    if not 0.8 * args.macs < found["macs"] <= args.macs:
        raise SystemExit(f"FastNAS missed the budget. Received: {found['macs']} MACs of {args.macs:.0f}")
    reestimate(net, data)
    found |= {"pruned_test": accuracy(net, data, "test")}
    net = net.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    start = time.perf_counter()
    fine_tune(net, data, args.epochs, args.one_cycle, args.rate, args.seed)
    found |= {"train_seconds": time.perf_counter() - start, "test_accuracy": accuracy(net, data, "test")}
    args.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
