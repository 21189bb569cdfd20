"""Trains a small network with the batch divided in every way, on one, two and four logical CPUs.

A program and not a test: TensorFlow divides the CPU only before it is first used. `python
replicated_training.py OUT.npz [all]`; keys are "replicas/accum/compiled/what".
"""

import itertools
import sys
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from secateur.coding.sharing.retraining import tie
from secateur.coding.sharing.share import share
from secateur.dataloader import Images, batches
from secateur.dataloader.pipelines import PIPELINES
from secateur.dataloader.registry import facts_of
from secateur.dataloader.views import training_view
from secateur.distillation import labels_only
from secateur.nets import FusedBatchNorm, MaskedConv2D, MaskedDense
from secateur.op_utils import Trainer, Workers, make_forward, reestimate_batch_norm, synchronising
from secateur.pruning.constrain.gradients import hold_filters, in_turn
from secateur.pruning.constrain.splitting import Splitting, admm
from secateur.recipes.training.resident import on_device

STEPS = 3
WAYS = [(1, 1, False), (1, 4, True), (2, 1, True), (2, 4, False), (4, 2, True)]
"""Replicas, micro-batches, XLA."""
EVERY_WAY = list(itertools.product((1, 2, 4), (1, 2, 4), (False, True)))
AUGMENTED = [(1, 2), (2, 1), (4, 2)]
"""Replicas and micro-batches where images are augmented."""
AVERAGES = ("moving_mean", "moving_variance")
ADJUSTED = [(1, False), (2, True)]
"""Replicas and XLA where gradients are adjusted."""
ADJUSTED_IN_EVERY_WAY = list(itertools.product((1, 2), (False, True)))


def network(norm: str) -> keras.Model:
    """A convolution, a BatchNorm ("frozen", "live", or "keras" own) and a classifier of four classes."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((8, 8, 3))
    x = MaskedConv2D(6, name="conv")(inputs)
    own = keras.layers.BatchNormalization(epsilon=1e-5, trainable=norm != "frozen", name="bn")
    x = (FusedBatchNorm(name="bn") if norm == "live" else own)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, MaskedDense(4, name="fc")(x))


def data(steps: int = STEPS, size: int = 16, seed: int = 3) -> list[dict[str, np.ndarray]]:
    """Batches of random images and labels."""
    rng = np.random.default_rng(seed)
    return [
        {
            "images": rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8),
            "labels": rng.integers(0, 4, size).astype(np.int32),
        }
        for _ in range(steps)
    ]


def own(strategy, whole: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """This worker's rows of batches."""
    workers = Workers(strategy)
    return [{name: rows[workers.rows(len(rows))] for name, rows in batch.items()} for batch in whole]


def scaled(images):
    """uint8 → about −1 … 1."""
    return tf.cast(images, tf.float32) / 128 - 1


def read(batch, seed=None):
    """What the network reads of a batch."""
    return scaled(batch["images"])


def augmented(batch, seed):
    """The same of the mean of two views of crops in other colours and of one with EKG's offset a batch."""
    crops = replace(PIPELINES.find("imagenet"), crop=8, views=2)
    images, facts = batch["images"], facts_of("CIFAR10", "rgb")
    views = [*tf.split(training_view(images, seed, crops, facts), 2)]
    views += [*tf.split(training_view(images, seed, replace(PIPELINES.find("ekg"), views=2), facts), 2)]
    return scaled(tf.add_n(views) / 4)


def trainer(strategy, norm: str, accum: int, compiled: bool) -> Trainer:
    """A trainer before its first step."""
    with strategy.scope():
        model = network(norm)
    options = {"weight_decay": 5e-4, "accum": accum, "strategy": strategy, "compile_": compiled}
    return Trainer(model, read, labels_only, **options)


def trained(strategy, norm: str, accum: int, compiled: bool) -> Trainer:
    """A trainer after `STEPS` steps."""
    made = trainer(strategy, norm, accum, compiled)
    seeds, rates = [(1, i) for i in range(STEPS)], [0.1, 0.05, 0.05]
    metrics = list(made.train(own(strategy, data()), seeds, rates))
    assert len(metrics) == STEPS
    return made


def curve(strategy, steps: int = 50) -> np.ndarray:
    """The losses of so many steps, BatchNorm frozen."""
    made = trainer(strategy, "frozen", 1, False)
    found = made.train(own(strategy, data(steps)), [(1, i) for i in range(steps)], [0.05] * steps)
    return np.array([loss for loss, *_ in found])


def synchronised(strategy) -> dict[str, np.ndarray]:
    """Gradients of a step and averages: BatchNorm frozen, or with the statistics of all; ours, and Keras'."""
    found = {}
    for norm in ("frozen", "live", "keras"):
        with strategy.scope():
            model = network(norm)
        with synchronising(model):
            found |= {f"{norm}/{i}": array for i, array in enumerate(gradients(strategy, model))}
        found |= {f"{norm}/{w}": np.array(getattr(model.get_layer("bn"), w)) for w in AVERAGES}
    return found


def gradients(strategy, model: keras.Model, reads=read, accum: int = 1) -> list[np.ndarray]:
    """What a step takes off the weights at rate 1."""
    options = {"momentum": 0.0, "optimizer": "torch_momentum", "accum": accum, "strategy": strategy}
    made = Trainer(model, reads, labels_only, **options)
    before = [np.array(v) for v in model.trainable_variables]
    list(made.train(own(strategy, data(1)), [(1, 0)], [1.0]))
    return [old - np.array(v) for old, v in zip(before, model.trainable_variables, strict=True)]


def augmented_gradients(strategy, accum: int) -> dict[str, np.ndarray]:
    """Gradients of a step on augmented images, by number."""
    with strategy.scope():
        model = network("frozen")
    return {str(i): array for i, array in enumerate(gradients(strategy, model, augmented, accum))}


def scaled_down(strategy) -> dict[str, np.ndarray]:
    """The state after three steps, the second of which is not finite in one image, and how many count."""

    def objective(logits, batch):
        loss, accuracy = labels_only(logits, batch)
        return loss * tf.reduce_mean(batch["factor"]), accuracy

    with strategy.scope():
        model = network("frozen")
    made = Trainer(model, read, objective, optimizer="adam", strategy=strategy, scaled=True)
    batches = [batch | {"factor": np.ones(16, np.float32)} for batch in data()]
    batches[1]["factor"][-1] = np.nan
    list(made.train(batches, [(1, i) for i in range(STEPS)], [1e-3] * STEPS))
    return made.state() | {"skipped": np.array(made.skipped)}


def adjusted(strategy, compiled: bool) -> Trainer:
    """A trainer with a penalty on the kernel, read off variables, and one output filter held."""
    with strategy.scope():
        model = network("frozen")
        kernel = model.get_layer("conv").kernel
        kernel.assign(kernel.numpy() * (np.arange(6) != 2))
        splitting = Splitting.of(model)
    splitting.sparse[0].assign(np.full(kernel.shape, 0.1))
    adjust = in_turn(admm(model, splitting, rho=0.5), hold_filters(model))
    trainer = Trainer(
        model,
        read,
        labels_only,
        weight_decay=5e-4,
        accum=2,
        strategy=strategy,
        compile_=compiled,
        adjust=adjust,
    )
    list(trainer.train(data(), [(1, i) for i in range(STEPS)], [0.1, 0.05, 0.05]))
    splitting.duals[0].assign(np.full(kernel.shape, -0.2))  # between epochs: nothing is compiled anew
    list(trainer.train(data(), [(1, i) for i in range(STEPS)], [0.05] * STEPS))
    return trainer


def skipping(strategy, accum: int) -> Trainer:
    """A trainer after `STEPS` steps; the second has a NaN in its last image, which one replica alone sees."""

    def objective(logits, batch):
        loss, accuracy = labels_only(logits, batch)
        return loss + tf.reduce_mean(batch["poison"]), accuracy

    with strategy.scope():
        model = network("live")
    batches = [batch | {"poison": np.zeros(len(batch["labels"]), np.float32)} for batch in data()]
    batches[1]["poison"][-1] = np.nan
    options = {"accum": accum, "strategy": strategy, "skip": 2}
    trainer = Trainer(model, read, objective, **options)
    list(trainer.train(batches, [(1, i) for i in range(STEPS)], [0.01] * STEPS))
    assert trainer.skipped == 1
    return trainer


def shared(strategy, compiled: bool) -> Trainer:
    """A trainer whose convolution has four values beside 0, after twice `STEPS` steps."""
    with strategy.scope():
        model = network("frozen")
        kernel = model.get_layer("conv").kernel
        kernel.assign(kernel.numpy() * (np.arange(6) != 2))
    trainer = Trainer(
        model,
        read,
        labels_only,
        weight_decay=5e-3,
        accum=2,
        strategy=strategy,
        compile_=compiled,
        adjust=tie(model, share(model, 2), 5e-3),
    )
    list(trainer.train(data(2 * STEPS), [(1, i) for i in range(2 * STEPS)], [0.01] * (2 * STEPS)))
    return trainer


def resident(strategy) -> Trainer:
    """As `trained`, with the images in the memory of the devices: batches hold their positions."""
    with strategy.scope():
        model = network("frozen")
    images, labels = (np.concatenate([batch[key] for batch in data()]) for key in ("images", "labels"))
    kept, preprocess = on_device(Images(images, labels, np.arange(len(labels))), read, strategy)
    made = Trainer(model, preprocess, labels_only, weight_decay=5e-4, strategy=strategy, compile_=True)
    sent = [batch._asdict() for batch in batches(kept, len(labels) // STEPS)]
    assert all(array.nbytes <= 8 * len(array) for batch in sent for array in batch.values())
    list(made.train(sent, [(1, i) for i in range(STEPS)], [0.1, 0.05, 0.05]))
    return made


def mirrored(count: int) -> tf.distribute.Strategy:
    """A strategy of so many logical CPUs, beside those of other numbers in one process."""

    class Mirrored(tf.distribute.MirroredStrategy):
        _collective_key_base = 1000 * count

    return Mirrored([f"/cpu:{i}" for i in range(count)])


def main(path: str, every_way: bool) -> None:
    """Writes the weights of some divisions, or of all."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    strategies = {1: tf.distribute.get_strategy()}
    strategies |= {n: mirrored(n) for n in (2, 4)}
    found = {f"{replicas}/curve": curve(strategy) for replicas, strategy in strategies.items()}
    for replicas, accum in [(1, 1), *AUGMENTED]:
        arrays = augmented_gradients(strategies[replicas], accum)
        found |= {f"{replicas}/augmented/{accum}/{key}": array for key, array in arrays.items()}
    for replicas, accum, compiled in EVERY_WAY if every_way else WAYS:
        weights = trained(strategies[replicas], "frozen", accum, compiled).state()
        found |= {f"{replicas}/{accum}/{compiled}/{k}": v for k, v in weights.items()}
    for replicas, compiled in ADJUSTED_IN_EVERY_WAY if every_way else ADJUSTED:
        kernel = adjusted(strategies[replicas], compiled).model.get_layer("conv").kernel
        found[f"{replicas}/adjusted/{compiled}"] = kernel.numpy()
        kernel = shared(strategies[replicas], compiled).model.get_layer("conv").kernel
        found[f"{replicas}/shared/{compiled}"] = kernel.numpy()
    alone_or_two = {1: strategies[1], 2: strategies[2]}
    second = {"second": tf.distribute.OneDeviceStrategy("/cpu:1")}
    for name, strategy in (alone_or_two | second).items():
        found |= {f"{name}/resident/{key}": value for key, value in resident(strategy).state().items()}
    for replicas, strategy in alone_or_two.items():
        state = skipping(strategy, 4 // replicas).state()
        found |= {f"{replicas}/skipped/{name}": array for name, array in state.items()}
        found |= {f"{replicas}/scaled/{key}": value for key, value in scaled_down(strategy).items()}
    for replicas, strategy in strategies.items():
        live = trained(strategy, "live", 4 // replicas, False)
        found[f"{replicas}/live/mean"] = live.model.get_layer("bn").moving_mean.numpy()
        images = data(1, 20)[0]["images"]
        again = trainer(strategy, "live", 4 // replicas, False)
        again.restore(live.state())
        found[f"{replicas}/live/restored"] = make_forward(again.model, scaled)(images, 7)
        traces = []
        with strategy.scope():
            forward = make_forward(live.model, lambda x, seen=traces: seen.append(x) or scaled(x))
            found[f"{replicas}/live/logits"] = np.concatenate([forward(images, 7), forward(images[:1], 7)])
        found[f"{replicas}/live/traces"] = np.array(len(traces))
        with strategy.scope():
            reestimate_batch_norm(live.model, scaled, images, 7)
        found[f"{replicas}/live/reestimated"] = live.model.get_layer("bn").moving_mean.numpy()
        found |= {f"{replicas}/synchronised/{key}": value for key, value in synchronised(strategy).items()}
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["all"])
