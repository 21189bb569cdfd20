"""Reports as the recipe writes them, made up: of a full run, of a short one, and without single parts."""

GROUPS = {
    "conv": (16, 16),
    "BasicBlock0.0_conv1": (16, 13),
    "BasicBlock1.0_conv3": (32, 32),
    "BasicBlock1.0_conv1": (32, 20),
}

SEARCH = {"kind": "search_ekg", "name": "search_ekg", "criterion": "l1", "target": 0.8}
FOUND = {"holdout_accuracy": 0.9555, "test_accuracy": 0.9123}
KERNEL = {
    "kernel": "conv/kernel", "bits": 3, "weights": 432, "zeros": 0, "distinct": 431, "values": 8,
    "error": 0.01234, "bytes": 187.6,
}  # fmt: skip
LANDSCAPE = {
    "images": 128, "loss": 0.1, "metric": 0.97, "radius": 0.05, "noise": 0.0123,
    "smallest": -0.75, "largest": 35.6, "condition": 0.0211, "errors": [0.01, 0.02],
    "values": [[-0.75, 0.0, 35.6]], "shares": [[0.1, 0.8, 0.1]],
    "at": [-1.0, 0.0, 1.0], "plane": [[4.0, 2.0, 3.0], [1.0, 0.1, 1.5], [3.0, 2.5, 5.0]],
}  # fmt: skip
TAUGHT = {
    "label_weight": 0.0,
    "losses": [{"name": "kd", "weight": 1.0, "moves_kernels": False, "options": {"temperature": 5.0}}],
    "teachers": [{"file": "snap_dense.pkl", "arch": "ResNet-20", "sha256": "0" * 64}],
}


def row(name: str, params: int, macs: int, ms: float, accuracy: float) -> dict:
    """One measured network, with the fields that the recipe writes."""
    return {
        "name": name,
        "params": params,
        "macs": macs,
        "flops_ekg": macs + 401408,
        "file_bytes": 4 * params + 13709,
        "batch": 128,
        "ms_frozen": 1.5 * ms,
        "ms_litert": ms,
        "holdout_accuracy": accuracy + 0.0031,
        "test_accuracy": accuracy,
    }


def epoch(phase: str, step: int, rate: float) -> dict:
    """One line of metrics.jsonl."""
    return {
        "phase": phase,
        "step": step,
        "time": 0.0,
        "loss": 2 / step,
        "accuracy": 1 - 0.8 / step,
        "holdout_loss": 2.2 / step,
        "holdout_accuracy": 0.95 - 0.8 / step,
        "learning_rate": rate,
    }


def cut(group: str, width: int, rate: float, loss: float) -> dict:
    """One committed step of a search."""
    return {
        "group": group,
        "width": width,
        "macs": int(41214592 * rate),
        "loss": loss,
        "score": 2 * loss,
        "accuracy": 1 - loss,
        "candidates": 7 if group else 0,
        "rate": rate,
    }


def minimal() -> dict:
    """A uniform run that stopped before fine-tuning."""
    return {
        "system": "l1, uniform",
        "setting": None,
        "command": "python train_cifar.py --criterion l1 --searching",
        "date": "2026-01-02 03:04 UTC",
        "machine": {
            "processor": "Some CPU",
            "cores": 2,
            "devices": ["CPU"],
            "python": "3.11.7",
            "tensorflow": "2.21.0",
            "keras": "3.15.1",
        },
        "config": {"arch": "ResNet-20", "dataset": "DIGITS", "program": [SEARCH]},
        "bn": "moving",
        "rows": [
            row("baseline", 272474, 40813184, 28.8, 0.9382),
            row("slimmed", 165988, 32518784, 25.9, 0.871),
        ],
        "widths": [],
        "stages": {},
        "bank": {},
        "seconds": {},
        "search": [],
        "epochs": [],
        "test_reads": 1,
    }


def full() -> dict:
    """An EKG run from a baseline of four epochs to the fine-tuned network."""
    return minimal() | {
        "system": "EKG",
        "rows": [*minimal()["rows"], row("fine-tuned", 165988, 32518784, 51.6, 0.9341)],
        "widths": [{"group": g, "before": b, "after": a} for g, (b, a) in GROUPS.items()],
        "stages": {
            "params": 1,
            "macs": 1,
            "holdout_batch_statistics": 0.9123,
            "holdout_stale_averages": 0.3187,
            "holdout_reestimated": 0.8741,
        },
        "bank": {"teachers": [0, 1], "losses": [0.02, 0.03]},
        "seconds": {"baseline": 7627.0, "search": 185.4, "slim": 2.24},
        "search": [
            cut("", 0, 1.0, 0.02),
            cut("BasicBlock1.0_conv1", 26, 0.91, 0.03),
            cut("BasicBlock0.0_conv1", 13, 0.84, 0.04),
            cut("BasicBlock1.0_conv1", 20, 0.79, 0.09),
        ],
        "epochs": [
            *(epoch("baseline", k, 0.1 / k) for k in (1, 2, 3, 4)),
            epoch("warm_up", 1, 0.001),
            *(epoch("fine_tune", k, 0.01) for k in (1, 2)),
        ],
        "files": [
            {"name": "model.tflite", "bytes": 691_337, "ms_litert": 28.8, **FOUND},
            {"name": "int8.tflite", "bytes": 312_384, "ms_litert": 7.8, **FOUND},
            {"name": "small.kpz", "bytes": 99_001, "ms_litert": None, **FOUND},
        ],
        "rounded": {"int8": {"float32": 0.9555, "rounded": 0.9412, "trained": 0.9511}},
        "shared": {"share": [KERNEL]},
        "taught": {"distil": TAUGHT},
        "landscapes": {"landscape": LANDSCAPE},
        "sensitivity": {
            "ratios": [0.25, 0.5],
            "whole": 0.9412,
            "curves": {"BasicBlock0.0_conv1": [0.31, 0.9107], "BasicBlock1.0_conv1": [0.8, 0.93]},
            "images": 200,
        },
    }


def learnt() -> dict:
    """A distillation from a larger teacher by two losses and one that moves filters; nothing was sliced."""
    options = {"temperature": 4.0, "factor": "T2", "mean": "kl", "over_classes": False, "weights": None}
    parts = {"unweighted_cross_entropy": 0.25, "unweighted_kd": 0.1, "unweighted_hap": 0.0002}
    return minimal() | {
        "system": "kd+hap+fad",
        "command": "python train_cifar.py --recipe distill --distill kd+hap+fad --teacher res32.pkl",
        "config": {"arch": "ResNet-20", "dataset": "DIGITS"},
        "rows": [
            row("teacher", 466906, 69124736, 40.0, 0.9507),
            row("student", 272474, 40813184, 28.8, 0.8028),
            row("fine-tuned", 272474, 40813184, 28.8, 0.9382),
        ],
        "epochs": [epoch("fine_tune", k, 0.01) | parts for k in (1, 2)],
        "learning": {
            "label_weight": 0.5,
            "losses": [
                {"name": "kd", "weight": 0.9, "moves_kernels": False, "options": options},
                {"name": "hap", "weight": 700.0, "moves_kernels": False, "options": {"teacher_blocks": 3}},
                {"name": "fad", "weight": 300.0, "moves_kernels": True, "options": {"units": 128}},
            ],
            "teachers": [{"file": "res32.pkl", "sha256": 8 * "0123abcd", "arch": "ResNet-32"}],
            "filter": None,
            "stored": False,
            "student": {"arch": "ResNet-20", "start": "small.pkl"},
            "kept_teachers": None,
        },
    }


def learnt_by_slimmed() -> dict:
    """HAP's run: the student is a slice of its teacher."""
    report = learnt()
    first, *_ = report["rows"]
    small = [row(name, 97343, 15072380, 20.0, a) for name, a in (("slimmed", 0.41), ("fine-tuned", 0.9382))]
    return report | {
        "rows": [first, *small], "widths": full()["widths"], "stages": full()["stages"]
    }  # fmt: skip


def parts_missing() -> list[dict]:
    """The full report without one part, for each part that a run may lack."""
    return [
        full() | {name: type(full()[name])()}
        for name in ("widths", "stages", "bank", "seconds", "search", "epochs")
    ]


def pruned() -> dict:
    """A report of `python -m pruning`, with all of its parts."""
    costs = {"params": 2834, "macs": 700448, "bytes": 11592, "ms": 9.471}
    return {
        "system": "keep_macs 0.4",
        "config": {"arch": "stripes"},
        "target": {"keep_macs": 0.4},
        "criterion": "taylor",
        "convention": "mac",
        "setup": "litert, 1 thread, batch 1",
        "rows": [],
        "costs": [
            {"name": "before", **costs},
            {"name": "after", **{k: v // 2 for k, v in costs.items()}},
        ],
        "widths": [{"group": g, "before": b, "after": a} for g, (b, a) in GROUPS.items()],
        "untouched": [{"layers": ["dense"], "channels": 2, "reason": "it is an output of the model"}],
        "parities": {"masked model": {"absolute": 6e-8, "relative": 9e-8}},
        "sensitivity": full()["sensitivity"],
        "plan": {"keep": {"conv": [0, 2]}, "sizes": {"conv": 16}},
        "command": "python -m pruning stripes.keras --keep_macs 0.4 -o small.keras",
        "machine": minimal()["machine"],
        "date": "2026-01-02 03:04 UTC",
    }
