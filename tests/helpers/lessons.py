"""Small lessons; as a program, trained with the batch divided in every way on two logical CPUs.

TensorFlow divides the CPU only before it is first used. `python lessons.py OUT.npz`; keys are
"replicas/accum/compiled/what".
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from secateur.distillation import Lesson, Live, build, ensemble, for_lesson, lesson_terms
from secateur.nets import FusedBatchNorm
from secateur.op_utils import Trainer

SHAPE, STEPS = (8, 8, 3), 2


def network(seed: int, trainable_norm: bool = True, dtype: str = "float32") -> keras.Model:
    """Two residual blocks at two resolutions, and a classifier of four classes."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input(SHAPE)
    for stage, width in enumerate((6, 8)):
        x = keras.layers.Conv2D(width, 3, stage + 1, "same", name="conv" if not stage else None, dtype=dtype)(
            x
        )
        y = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, dtype=dtype)(x)
        norm = FusedBatchNorm() if trainable_norm else keras.layers.BatchNormalization(trainable=False)
        y = norm(y)
        x = keras.layers.ReLU(name=f"end{stage}", dtype=dtype)(keras.layers.Add(dtype=dtype)([x, y]))
    x = keras.layers.GlobalAveragePooling2D(name="pool", dtype=dtype)(x)
    return keras.Model(inputs, keras.layers.Dense(4, dtype=dtype)(x))


def batches(steps: int, size: int = 16) -> list[dict[str, np.ndarray]]:
    """Batches of random images and labels."""
    rng = np.random.default_rng(3)
    return [
        {
            "images": rng.integers(0, 256, (size, *SHAPE), dtype=np.uint8),
            "labels": rng.integers(0, 4, size).astype(np.int32),
        }
        for _ in range(steps)
    ]


read = for_lesson(lambda batch, seed: tf.cast(batch["images"], tf.float32) / 128 - 1)


def lesson(student: keras.Model, teacher: keras.Model) -> Lesson:
    """Logits, Gram matrices, and a loss with weights of its own, the last."""
    terms = [(build("kd"), 0.9), (build("sp"), 10.0), (build("afd"), 10.0)]
    return Lesson(student, Live(teacher, ["all"]), terms)


def trained(strategy, accum: int, compiled: bool) -> tuple[Trainer, list]:
    """A trainer after `STEPS` steps with two teachers and a loss of means over samples; its metrics."""
    with strategy.scope():
        teachers = [network(seed, trainable_norm=False) for seed in (2, 3)]
        terms = [(build("kd"), 0.9), (build("at"), 10.0)]
        both = Lesson(network(1, trainable_norm=False), ensemble(teachers, reads=["stages"]), terms)
    return run(both, strategy, accum, compiled)


def run(both: Lesson, strategy, accum: int, compiled: bool) -> tuple[Trainer, list]:
    """Trains for `STEPS` steps."""
    options = {"accum": accum, "strategy": strategy, "compile_": compiled, "terms": len(both.term_names)}
    trainer = Trainer(both, read, lesson_terms, weight_decay=5e-4, **options)
    seeds, rates = [(1, i) for i in range(STEPS)], [0.1, 0.05]
    return trainer, list(trainer.train(batches(STEPS), seeds, rates))


def main(path: str) -> None:
    """Writes the weights of all divisions."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two, found = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]), {}
    for replicas, accum, compiled in ((1, 1, False), (1, 4, True), (2, 1, True), (2, 2, False)):
        trainer, metrics = trained(one if replicas == 1 else two, accum, compiled)
        found |= {f"{replicas}/{accum}/{compiled}/{k}": v for k, v in trainer.state().items()}
        found[f"metrics/{replicas}/{accum}/{compiled}"] = metrics
    with two.scope():
        teacher = network(2)
        both = lesson(network(1), teacher)
    weights, own = teacher.get_weights(), [v.numpy() for v in both.terms[-1][0].trainable_variables]
    found["own/metrics"] = run(both, two, 1, False)[1]
    moved = zip(weights, teacher.get_weights(), strict=True)
    grown = zip(own, both.terms[-1][0].trainable_variables, strict=True)
    found["own/teacher moved"] = max(np.abs(a - b).max() for a, b in moved)
    found["own/loss moved"] = max(np.abs(a - b.numpy()).max() for a, b in grown)
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
