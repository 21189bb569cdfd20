"""Published and independently counted sizes of the architectures, to the last digit."""

import pytest

IMAGENET = {"num_classes": 1000, "input_shape": (224, 224, 3)}

# parameters, without BN's, multiply-accumulates, 2·h·w·c of all BN
CIFAR = {
    ("PreResNet-110", 10): (1_730_522, 1_722_426, 253_149_824, 2_097_152),
    ("PreResNet-164", 10): (1_703_258, 1_679_034, 247_646_720, 6_299_648),
    ("PreResNet-164", 100): (1_726_388, 1_702_164, 247_669_760, 6_299_648),
    ("WRN-28-10", 10): (36_479_194, 36_461_242, 5_243_328_768, 4_620_288),
    ("WRN-28-10", 100): (36_536_884, 36_518_932, 5_243_386_368, 4_620_288),
    ("WRN-16-8", 10): (10_961_370, 10_954_170, 1_548_145_664, 1_867_776),
    ("WRN-16-8", 100): (11_007_540, 11_000_340, 1_548_191_744, 1_867_776),
}
A = {
    ("ResNet-20", 10): (269_722, 268_346, 40_551_040, 376_832),
    ("ResNet-32", 10): (464_154, 461_882, 68_862_592, 606_208),
    ("ResNet-44", 10): (658_586, 655_418, 97_174_144, 835_584),
    ("ResNet-56", 10): (853_018, 848_954, 125_485_696, 1_064_960),
    ("ResNet-56", 100): (858_868, 854_804, 125_491_456, 1_064_960),
    ("ResNet-110", 10): (1_727_962, 1_719_866, 252_887_680, 2_097_152),
    ("ResNet-110", 100): (1_733_812, 1_725_716, 252_893_440, 2_097_152),
}
SINGLE = {
    ("VGG-16", 10): (14_724_042, 14_715_594, 313_201_664, 552_960),
    ("VGG-19", 10): (20_035_018, 20_024_010, 398_136_320, 606_208),
    ("VGG-19", 100): (20_081_188, 20_070_180, 398_182_400, 606_208),
}


@pytest.mark.parametrize(("arch", "classes"), CIFAR)
def test_pre_activation_and_wide_resnets(counted, arch, classes):
    assert counted(arch, num_classes=classes) == CIFAR[arch, classes]


@pytest.mark.parametrize(("arch", "classes"), A)
def test_cifar_resnets_without_projections(counted, arch, classes):
    assert counted(arch, num_classes=classes, shortcut="A") == A[arch, classes]
    if arch == "ResNet-20":
        assert counted(arch, num_classes=classes, shortcut="A'") == A[arch, classes]


def test_cifar_resnets_with_projections(counted):
    assert counted("ResNet-20") == (272_474, 270_906, 40_813_184, 401_408)
    assert counted("ResNet-56") == (855_770, 851_514, 125_747_840, 1_089_536)
    assert counted("ResNet-56", num_classes=100) == (861_620, 857_364, 125_753_600, 1_089_536)


@pytest.mark.parametrize(("arch", "classes"), SINGLE)
def test_vgg_with_a_single_dense_layer(counted, arch, classes):
    assert counted(arch, num_classes=classes, head="single") == SINGLE[arch, classes]


@pytest.mark.parametrize(
    ("classes", "params", "without", "macs"),
    [(10, 14_987_722, 14_979_274, 313_463_808), (100, 15_033_892, 15_025_444, 313_509_888)],
)
def test_vgg_with_a_hidden_layer(counted, classes, params, without, macs):
    """The published columns of BN leave out the hidden layer's 512 channels."""
    assert counted("VGG-16", num_classes=classes) == (params, without - 1024, macs, 552_960 + 1024)


def test_imagenet_resnets(counted):
    assert counted("ResNet-18", **IMAGENET)[::2] == (11_689_512, 1_814_073_344)
    assert counted("ResNet-34", **IMAGENET)[::2] == (21_797_672, 3_663_761_408)
    assert counted("ResNet-50", **IMAGENET) == (25_557_032, 25_503_912, 4_089_184_256, 22_227_968)
    tiny = IMAGENET | {"num_classes": 200}
    assert counted("ResNet-18", **tiny)[::2] == (11_279_112, 1_813_663_744)
    assert counted("ResNet-34", **tiny)[::2] == (21_387_272, 3_663_351_808)
    assert [counted(f"ResNet-{depth}", **IMAGENET)[3] for depth in (18, 34)] == [4_967_424, 7_476_224]


def test_resnet50_of_the_lottery_notebook_sees_images_of_32(counted):
    assert counted("ResNet-50", num_classes=1000) == (25_557_032, 25_503_912, 85_458_944, 453_632)


def test_explicit_padding_changes_no_count(counted):
    for arch in ("ResNet-20", "ResNet-18", "MobileNet-v2"):
        assert counted(arch, padding="torch") == counted(arch)


def test_mobilenet_has_its_published_size(counted):
    """3.4 M parameters and 300 M multiply-adds (table 4 of the paper), here to the digit of torchvision's."""
    assert counted("MobileNet-v2", stem="imagenet", **IMAGENET)[::2] == (3_504_872, 300_774_272)
    assert counted("MobileNet-v2")[0] == 3_504_872 - 990 * (1280 + 1)
