"""What each published system does to images before its network reads them: data for `dataloader.views`."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.runs.registry import Registry

Triple = tuple[float, float, float]
Constants = tuple[Triple, Triple]
"""(mean, standard deviation) of red, green and blue on the 0–255 scale."""


@dataclass(frozen=True)
class Pipeline:
    """One system's way with images.

    Attributes:
        normalisation: key of `NORMALISATIONS`, or a name that the data set's own entry has ("rgb", "bgr").
        pad: pixels that are added on each side before the crop.
        pad_mode: "zero" (black, before normalising) or "reflect".
        flip: whether to mirror half of the images.
        per_batch_crop: one crop offset a batch and view.
        views: 2 = every image twice, with jittered colours (EKG's fine-tuning with knowledge).
        crop: side of a random resized crop in training and of the centre crop in tests, instead of padding.
        resize: side that images are brought to before the centre crop.
        shortcut: of its CIFAR ResNets, see `nets.NetSpec`.
    """

    normalisation: str
    pad: int = 4
    pad_mode: str = "zero"
    flip: bool = True
    per_batch_crop: bool = False
    views: int = 1
    crop: int | None = None
    resize: int | None = None
    shortcut: str = "A"


PIPELINES: Registry[Pipeline] = Registry(
    "pipeline",
    "pipelines",
    {
        "kesi": Pipeline("kesi"),
        "kesi_tiny": Pipeline("imagenet", crop=224, resize=256),
        "rethinking": Pipeline("kesi"),
        "slimming": Pipeline("kesi"),
        "hap": Pipeline("hap", shortcut="A'"),
        "hap_cinic": Pipeline("hap", shortcut="A'"),
        "sfp": Pipeline("sfp", shortcut="A'"),
        "ekg": Pipeline("bgr", pad_mode="reflect", per_batch_crop=True, shortcut="B"),
        "nni": Pipeline("kesi"),
        "imagenet": Pipeline("imagenet", crop=224, resize=256),
    },
)


def _of_unit(mean: Triple, std: Triple) -> Constants:
    """Constants that were published for pixels in [0, 1]."""
    return tuple(255 * x for x in mean), tuple(255 * x for x in std)


IMAGENET = _of_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KESI = _of_unit((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

NORMALISATIONS: dict[str, dict[str, Constants]] = {
    "kesi": {"CIFAR10": KESI, "CIFAR100": KESI, "TINY_IMAGENET": IMAGENET},  # the same for both CIFARs
    "hap": {
        "CIFAR10": _of_unit((0.4913, 0.4824, 0.4467), (0.2470, 0.2435, 0.2616)),
        "CIFAR100": _of_unit((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        "CINIC10": _of_unit((0.4789, 0.4723, 0.4305), (0.2421, 0.2383, 0.2587)),
        "CINIC10_VALID": _of_unit((0.4789, 0.4723, 0.4305), (0.2421, 0.2383, 0.2587)),
    },
    "sfp": {
        "CIFAR10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
        "CIFAR100": ((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
    },
}
"""system → data set → constants. EKG's are the data sets' own "bgr"."""


PIXELS: dict[str, Constants] = {
    "0..255": ((0.0,) * 3, (1.0,) * 3),
    "0..1": ((0.0,) * 3, (255.0,) * 3),
    "-1..1": ((127.5,) * 3, (127.5,) * 3),
    "caffe": ((103.939, 116.779, 123.68), (1.0,) * 3),
    "torch": IMAGENET,
}
"""What models read, as `keras.applications` names it, with any data set. For "caffe" the channels stand in
the order blue, green, red (`EXCHANGED`)."""
EXCHANGED = ("caffe",)


def normalisations_of(dataset: str) -> dict[str, Constants]:
    """Return the systems' constants for a data set, by system."""
    return {system: sets[dataset] for system, sets in NORMALISATIONS.items() if dataset in sets}
