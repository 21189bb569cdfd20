"""Flags of published programs in our words, as data: a recipe takes its system's own commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

Values = list[str]
Ours = Callable[[Values], list[str]]  # the words behind a flag → words of ours


def renamed(flag: str) -> Ours:
    """The same values behind another flag."""
    return lambda values: [flag, *values]


def looked_up(theirs: str, flag: str, table: Mapping[str, str]) -> Ours:
    """A value from a table behind another flag. Raises `UsageError` for one that is not in it."""

    def words(values: Values) -> list[str]:
        wrong = next((v for v in values if v not in table), None)
        if wrong is not None or not values:
            hint = nearest(wrong or "", table)
            raise UsageError(f"Unknown value. Received: {theirs} {wrong or 'without one'}. {hint}")
        return [flag, *(table[v] for v in values)]

    return words


def network(values: Values) -> list[str]:
    """resnet56 → ResNet-56."""
    return ["--arch", *(re.sub(r"(?i)^resnet-?(\d+)$", r"ResNet-\1", value) for value in values)]


def only(theirs: str, value: str) -> Ours:
    """A flag whose one value is what happens here anyway."""

    def words(values: Values) -> list[str]:
        if values != [value]:
            raise UsageError(f"Only {value} is supported. Received: {theirs} {' '.join(values)}")
        return []

    return words


HAP_MODES = {
    "filter-r": "random",
    "filter-a": "l1",
    "filter-gm": "fpgm_squared",
    "filter-nggm": "nggm",
    "filter-n-g-gm-1": "nggm",
}
HAP_LOSSES = {name: f"kd+{name}" for name in ("at", "sp", "afd", "hap", "asp", "lsp", "lsp2", "mat", "fad")}
HAP_LOSSES["msp"] = "kd+hap"
DATA = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "digits": "DIGITS"}

HAP_FLAGS: dict[str, Ours] = {
    "--t-model": network,
    "--t-path": renamed("--teacher"),
    "--s-copy-t": lambda _: ["--copy_teacher"],
    "--prune-rates": renamed("--keep"),  # the ratio that stays, in HAP's words too
    "--prune-mode": looked_up("--prune-mode", "--criterion", HAP_MODES),
    "--distill": lambda values: ["--distill", *(HAP_LOSSES.get(value, value) for value in values)],
    "--hap-ts": renamed("--hap_ts"),
    "--log-name": renamed("--setting"),
    "--lr": renamed("--learning_rate"),
    "--n-epochs": renamed("--train_epoch"),
    "--msp-ts": renamed("--hap_ts"),
    "--kd-t": renamed("--temperature"),
    "--weight-decay": renamed("--weight_decay"),
    "--samp-batches": only("--samp-batches", "25"),
    "--batch-size": renamed("--batch_size"),
    "--dataset": lambda v: ["--dataset", *(DATA.get(x, x) for x in v)],
}  # fmt: skip
"""HAP's flag → ours. KD is added to every loss, as its program does."""


def translate(words: Sequence[str], flags: Mapping[str, Ours]) -> list[str]:
    """Published flags with their values in our words; everything else as it is."""
    found: list[str] = []
    rest = list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag not in flags:
            found.append(flag + equals + value)
            continue
        values = [value] if equals else []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        found += flags[flag](values)
    return found
