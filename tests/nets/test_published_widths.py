"""KESI's pruned networks: widths in a spec give the published parameters and multiply-accumulates."""

import pytest

TINY = {"num_classes": 200, "input_shape": (224, 224, 3)}
VGG_PRUNED = ("Conv0.0", "Conv3.0", "Conv3.1", "Conv3.2", "Conv4.0", "Conv4.1", "Conv4.2")

# arch → the filters removed, in tenths, by stage; blocks left whole; parameters and MACs after 1 and 5 rounds
PUBLISHED = {
    "ResNet-56": ((1, 2, 3), "1.7 2.0 3.0 3.8", (654_450, 102_187_648), (283_816, 51_094_144)),
    "ResNet-110": ((1, 2, 3), "1.17 2.0 3.0", (1_256_960, 200_245_888), (383_534, 86_188_672)),
    "PreResNet-164": ((1, 2, 3), "1.17 2.0 3.0", (1_091_779, 178_169_600), (313_620, 67_620_160)),
    "WRN-16-8": ((1, 2, 3), "", (8_010_654, 1_233_916_928), (2_479_022, 547_509_248)),
    "ResNet-18": ((1, 1, 2, 3), "", None, (2_708_380, 826_614_016)),
    "ResNet-34": ((1, 1, 2, 3), "", None, (5_404_362, 1_558_631_680)),
}
BLOCKS = {
    "ResNet-56": 9,
    "ResNet-110": 18,
    "PreResNet-164": 18,
    "WRN-16-8": 2,
    "ResNet-18": 2,
    "ResNet-34": 6,
}


def widths(arch: str, rounds: int) -> dict[str, int]:
    """Widths of the inner convolutions after some rounds, each of which keeps a fixed share, rounded down."""
    shares, whole, *_ = PUBLISHED[arch]
    bottleneck, four = arch == "PreResNet-164", len(shares) == 4
    base = {"WRN-16-8": 128}.get(arch, 64 if four else 16)
    found = {}
    for stage, tenths in enumerate(shares):
        width = base * 2**stage
        for _ in range(rounds):
            width = width * (10 - tenths) // 10
        for block in range(BLOCKS[arch]):
            if f"{stage + 1}.{block}" not in whole.split():
                name = f"{'Bottleneck' if bottleneck else 'BasicBlock'}{stage}.{block}"
                found |= {f"{name}_conv{i}": width for i in ((1, 2) if bottleneck else (1,))}
    return found


@pytest.mark.parametrize("arch", PUBLISHED)
def test_rounds_of_kesi(counted, arch):
    options = TINY if len(PUBLISHED[arch][0]) == 4 else {"shortcut": "A"} if arch.startswith("ResNet") else {}
    for rounds, expected in ((1, PUBLISHED[arch][2]), (5, PUBLISHED[arch][3])):
        if expected:
            assert counted(arch, widths=widths(arch, rounds), **options)[::2] == expected


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [((48, 384), (9_455_098, 253_383_680)), ((15, 121), (2_714_694, 170_582_476))],
)
def test_rounds_of_kesi_on_a_vgg(counted, rounds, expected):
    wide = {f"{name}_conv": rounds[0 if name == "Conv0.0" else 1] for name in VGG_PRUNED}
    assert counted("VGG-16", widths=wide)[::2] == expected
