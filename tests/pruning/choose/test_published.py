"""The plans of KESI and PFEC: every published count, to the digit, and the round that follows a round."""

from functools import cache

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.pruning import compact, complexity, find_groups, plan_of_widths, published_widths, score_groups
from secateur.pruning.choose.published import PUBLISHED, next_widths
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.count.costs import operations, parameters
from secateur.pruning.count.polynomial import Polynomial
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.plan import Plan
from secateur.runs.errors import UsageError
from tests.helpers import toys

TINY = {"num_classes": 200, "input_shape": (224, 224, 3)}  # Tiny-ImageNet, scaled up

# architecture → parameters and MACs after rounds 1, 2, … of KESI
KESI = {
    "ResNet-56": [
        (654_450, 102_187_648),
        (513_598, 84_345_472),
        (417_760, 70_263_424),
        (340_398, 59_572_864),
        (283_816, 51_094_144),
    ],
    "ResNet-110": [
        (1_256_960, 200_245_888),
        (923_318, 160_137_856),
        (697_592, 128_803_456),
        (516_032, 104_989_312),
        (383_534, 86_188_672),
    ],
    "PreResNet-164": [
        (1_091_779, 178_169_600),
        (741_590, 133_337_856),
        (541_579, 102_481_472),
        (402_771, 82_183_936),
        (313_620, 67_620_160),
    ],
    "WRN-16-8": [
        (8_010_654, 1_233_916_928),
        (5_894_362, 993_563_648),
        (4_378_574, 807_474_176),
        (3_277_770, 662_230_016),
        (2_479_022, 547_509_248),
    ],
    "VGG-16": [
        (9_455_098, 253_383_680),
        (6_273_310, 216_839_168),
        (4_431_289, 194_220_800),
        (3_355_802, 179_797_040),
        (2_714_694, 170_582_476),
    ],
}
WRN_28_10 = [26_636_634, 19_526_458, 14_445_962, 10_758_386, 8_096_458]
TINY_IMAGENET = {"ResNet-18": (2_708_380, 826_614_016), "ResNet-34": (5_404_362, 1_558_631_680)}
PFEC = {
    ("pfec_a", "ResNet-56"): (773_336, 112_435_840),
    ("pfec_b", "ResNet-56"): (735_712, 90_907_264),
    ("pfec_a", "ResNet-110"): (1_688_522, 212_779_648),
    ("pfec_b", "ResNet-110"): (1_168_424, 155_124_352),
    ("pfec_a", "VGG-16"): (5_397_034, 206_279_680),
}
# width → the widths that KESI's rounds leave of it
SEQUENCES = {
    ("ResNet-56", "BasicBlock0.0_conv1"): [14, 12, 10, 9, 8],
    ("ResNet-56", "BasicBlock1.1_conv1"): [25, 20, 16, 12, 9],
    ("ResNet-56", "BasicBlock2.1_conv1"): [44, 30, 21, 14, 9],
    ("PreResNet-164", "Bottleneck2.1_conv2"): [44, 30, 21, 14, 9],
    ("VGG-16", "Conv0.0_conv"): [48, 36, 27, 20, 15],
    ("VGG-16", "Conv4.2_conv"): [384, 288, 216, 162, 121],
    ("WRN-16-8", "BasicBlock0.1_conv1"): [115, 103, 92, 82, 73],
    ("WRN-16-8", "BasicBlock1.0_conv1"): [204, 163, 130, 104, 83],
    ("WRN-16-8", "BasicBlock2.1_conv1"): [358, 250, 175, 122, 85],
}


@cache
def costed(arch: str) -> tuple[dict[str, int], tuple[Polynomial, Polynomial]]:
    """Widths by group, and parameters and MACs as functions of them; no network has weights."""
    options = TINY if arch in TINY_IMAGENET else {}
    options |= {"shortcut": "A"} if arch in ("ResNet-56", "ResNet-110") else {}
    with keras.StatelessScope(initialize_variables=False):
        analysis = analyse(nets.build(arch, **options))
    rule, orders = CONVENTIONS["mac"], {g.name: np.arange(g.size) for g in analysis.groups}
    costs = Polynomial(parameters(analysis, rule), orders), Polynomial(operations(analysis, rule), orders)
    keras.utils.clear_session()  # forgets the variables that were never given a value
    return {g.name: g.size for g in analysis.groups}, costs


def rounds(name: str, arch: str, count: int) -> list[dict[str, int]]:
    """Widths of all groups after each of so many rounds."""
    widths, found = costed(arch)[0], []
    for _ in range(count):
        widths = widths | next_widths(name, arch, widths)
        found.append(widths)
    return found


def counts(name: str, arch: str, count: int) -> list[tuple[float, float]]:
    params, macs = costed(arch)[1]
    return [(params(widths), macs(widths)) for widths in rounds(name, arch, count)]


@pytest.mark.parametrize("arch", KESI)
def test_five_rounds_of_kesi(arch):
    assert counts("kesi", arch, 5) == KESI[arch]


def test_five_rounds_of_kesi_on_the_large_networks():
    assert [params for params, _ in counts("kesi", "WRN-28-10", 5)] == WRN_28_10
    for arch, expected in TINY_IMAGENET.items():
        assert counts("kesi", arch, 5)[-1] == expected


@pytest.mark.parametrize(("arch", "group"), SEQUENCES)
def test_each_round_rounds_down(arch, group):
    assert [widths[group] for widths in rounds("kesi", arch, 5)] == SEQUENCES[arch, group]


@pytest.mark.parametrize(("name", "arch"), PFEC)
def test_pfec_has_the_counts_of_the_paper(name, arch):
    assert counts(name, arch, 1) == [PFEC[name, arch]]


def test_vgg_a_has_the_widths_of_the_paper():
    widths = rounds("pfec_a", "VGG-16", 1)[0]
    assert list(widths.values()) == [32, 64, 128, 128, 256, 256, 256] + [256] * 6 + [512]


@pytest.mark.parametrize("arch", KESI)
def test_a_network_of_these_widths_costs_as_much(arch):
    """Built anew from its spec, the fifth network has the published counts too."""
    shortcut = "A" if arch in ("ResNet-56", "ResNet-110") else "B"
    with keras.StatelessScope(initialize_variables=False):
        model = nets.build(arch, shortcut=shortcut, widths=next_five(arch))
    cost = complexity(model)
    keras.utils.clear_session()
    assert (cost.params, cost.macs) == KESI[arch][-1]


def next_five(arch: str) -> dict[str, int]:
    whole, last = costed(arch)[0], rounds("kesi", arch, 5)[-1]
    return {name: width for name, width in last.items() if width != whole[name]}


@pytest.mark.parametrize("shortcut", ["A", "A'", "B"])
def test_kesi_goes_on_where_it_stopped(shortcut):
    """Five times: plan, cut, plan the smaller network; together they are one plan for the first."""
    model = first = toys.small_resnet(shortcut)
    stream = {g.name: g.size for g in find_groups(model) if not g.name.endswith("_conv1")}
    whole, left = Plan.full(find_groups(model)), []
    for _ in range(5):
        plan = plan_of_widths(model, published_widths("kesi", model))
        model, whole = compact(model, plan), whole.then(plan)
        left.append([plan.widths()[f"BasicBlock{stage}.0_conv1"] for stage in range(3)])
    assert left == [[14, 25, 44], [12, 20, 30], [10, 16, 21], [9, 12, 14], [8, 9, 9]]
    assert stream.items() <= whole.widths().items()
    again = compact(first, whole)
    assert again.spec == model.spec
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_best_channels_stay_and_of_equal_ones_the_first():
    model = toys.small_resnet()
    scores = score_groups(model, "l2")
    name = "BasicBlock0.0_conv1"
    scores[name] = np.array([0, 1] * 8, float)
    plan = plan_of_widths(model, {name: 10}, scores)
    assert plan.keep[name] == (0, 1, 2, 3, 5, 7, 9, 11, 13, 15)
    assert {n: w for n, w in plan.widths().items() if n != name} == {
        g.name: g.size for g in find_groups(model) if g.name != name
    }


def test_other_networks_of_a_family_have_its_shares_and_no_block_is_left_whole():
    widths = next_widths("kesi", "ResNet-20", costed("ResNet-20")[0])
    blocks = [(stage, block) for stage in range(3) for block in range(3)]
    assert widths == {f"BasicBlock{s}.{b}_conv1": (14, 25, 44)[s] for s, b in blocks}
    assert set(next_widths("kesi", "ResNet-50", {"Bottleneck3.2_conv2": 512}).values()) == {358}


def test_no_group_is_emptied():
    assert next_widths("pfec_b", "ResNet-56", {"BasicBlock0.0_conv1": 1}) == {"BasicBlock0.0_conv1": 1}


def test_names_say_what_there_is():
    with pytest.raises(UsageError, match="Received: name='pfec-a'. Did you mean 'pfec_a'"):
        next_widths("pfec-a", "ResNet-56", {})
    with pytest.raises(UsageError, match="Received: arch='ResNet-20'.*Valid: ResNet-56, ResNet-110, VGG-16"):
        next_widths("pfec_a", "ResNet-20", {})
    with pytest.raises(UsageError, match="Received: arch='MobileNet-v2'") as found:
        next_widths("kesi", "MobileNet-v2", {})
    assert all(arch in str(found.value) for arch in PUBLISHED["kesi"])
    with pytest.raises(UsageError, match="Received: model 'plain' without a spec"):
        published_widths("kesi", toys.plain_net())


def test_widths_of_no_group_or_no_network_are_refused():
    model = toys.small_resnet()
    name = "BasicBlock0.0_conv1"
    with pytest.raises(UsageError, match=f"No such group.*Did you mean '{name}'"):
        plan_of_widths(model, {"BasicBlock0.0_conv": 3})
    for width in (0, 17):
        with pytest.raises(UsageError, match=f"has 16 channels.*Received: width={width}"):
            plan_of_widths(model, {name: width})
    scores = {"BasicBlock1.0_conv1": np.ones(32)}
    with pytest.raises(UsageError, match="has no scores.*Received: width=3"):
        plan_of_widths(model, {name: 3}, scores)
