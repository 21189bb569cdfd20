"""EKG's search on a CIFAR ResNet with projections, slow and literal: gates on activations, masks on kernels.

Written from the description of the published program alone; shares no code with `pruning`. Widths never
change: a gate multiplies an activation by zeros and ones, and passes every gradient on unmasked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

EPSILON = 1e-5


@dataclass
class Gate:
    """`num_call` is the number of layers that share it; `side` its resolution, for counting."""

    name: str
    size: int
    num_call: int = 1
    rate: float = 1.0
    order: np.ndarray = field(default=None)

    def mask(self) -> np.ndarray:
        return (self.order < max(self.size * self.rate, 1)).astype(np.float32)


@tf.custom_gradient
def gate(x, mask, score):
    y = x * mask

    def backward(dy):
        return dy, None, tf.abs(tf.reduce_sum(dy * y, [0, 1, 2]))

    return y, backward


class Reference:
    """The network and one search over it. `history` has (gate, kept channels, loss, score) per step."""

    def __init__(self, model, depth, images, labels, batch_size, step, target):
        self.weights = {
            layer.name: {v.name: tf.constant(v.numpy()) for v in layer.variables} for layer in model.layers
        }
        self.blocks, self.side, self.step = (depth - 2) // 6, images.shape[1], step
        self.batches = [slice(i, i + batch_size) for i in range(0, len(images), batch_size)]
        self.images, self.labels = tf.constant(images), tf.constant(labels, tf.int32)
        self.gates = self._gates()
        self.flops = self.count()
        self.limit = target * self.flops
        self.teacher, self.counter, self.history = self.logits(), 1, []

    def _gates(self) -> dict[str, Gate]:
        gates = []
        for stage, width in enumerate((16, 32, 64)):
            gates.append(Gate(self._stream(stage), width, 1 + self.blocks))
            gates += [Gate(f"BasicBlock{stage}.{b}_conv1", width) for b in range(self.blocks)]
        for g in gates:
            g.order = np.arange(g.size)
        return {g.name: g for g in gates}

    @staticmethod
    def _stream(stage: int) -> str:
        return "conv" if stage == 0 else f"BasicBlock{stage}.0_conv3"

    # -- the network -----------------------------------------------------------------------------------------

    def network(self, x, masks, scores):
        """Logits in batch-statistics mode under masks; gradients arrive at the scores."""

        def conv_bn(x, conv, bn, mask_in, mask_out, stride=1):
            kernel = self.masked(self.weights[conv]["kernel"], mask_in, mask_out)
            x = tf.nn.conv2d(x, kernel, stride, "SAME")
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            w = self.weights[bn]
            return tf.nn.batch_normalization(x, mean, variance, w["beta"], w["gamma"], EPSILON)

        stream = "conv"
        x = gate(tf.nn.relu(conv_bn(x, "conv", "bn", None, masks["conv"])), masks["conv"], scores["conv"])
        for stage in range(3):
            for block in range(self.blocks):
                name, here, inner = (
                    f"BasicBlock{stage}.{block}",
                    self._stream(stage),
                    f"BasicBlock{stage}.{block}_conv1",
                )
                first = stage > 0 and block == 0
                stride = 2 if first else 1
                shortcut = x
                if first:
                    shortcut = conv_bn(x, here, f"{name}_bn3", masks[stream], masks[here], 2)
                y = tf.nn.relu(conv_bn(x, inner, f"{name}_bn1", masks[stream], masks[inner], stride))
                y = gate(y, masks[inner], scores[inner])
                y = conv_bn(y, f"{name}_conv2", f"{name}_bn2", masks[inner], masks[here])
                x = gate(tf.nn.relu(shortcut + y), masks[here], scores[here])
                stream = here
        w = self.weights["fc"]
        return tf.reduce_mean(x, [1, 2]) @ self.masked(w["kernel"], masks[stream], None) + w["bias"]

    @staticmethod
    def masked(kernel, mask_in, mask_out):
        result = kernel
        if mask_in is not None:
            result *= mask_in[:, None]
        if mask_out is not None:
            result *= mask_out
        return result * (tf.norm(kernel) / tf.norm(result))

    def masks(self):
        return {name: tf.constant(g.mask()) for name, g in self.gates.items()}

    @tf.function(autograph=False)
    def _logits(self, x, masks):
        return self.network(x, masks, {name: tf.zeros(g.size) for name, g in self.gates.items()})

    def logits(self):
        masks = self.masks()
        return np.concatenate([self._logits(self.images[part], masks).numpy() for part in self.batches])

    @tf.function(autograph=False)
    def _score_gradients(self, x, labels, teacher, masks):
        scores = {name: tf.zeros(g.size) for name, g in self.gates.items()}
        with tf.GradientTape() as tape:
            tape.watch(scores)
            loss = tf.reduce_sum(reward(labels, teacher, self.network(x, masks, scores))) / 256
        return tape.gradient(loss, scores)

    # -- the search ------------------------------------------------------------------------------------------

    def count(self) -> float:
        """EKG's FLOPs: H·W·k²·Di·Do, Di·Do of the dense layer, 2·H·W·C of each BN."""
        width = {name: int(g.mask().sum()) for name, g in self.gates.items()}
        side, stream = self.side, width["conv"]
        total = side**2 * (9 * 3 * stream + 2 * stream)
        for stage in range(3):
            for block in range(self.blocks):
                here, inner = width[self._stream(stage)], width[f"BasicBlock{stage}.{block}_conv1"]
                if stage > 0 and block == 0:
                    side //= 2
                    total += side**2 * (stream * here + 2 * here)
                total += side**2 * (9 * stream * inner + 2 * inner + 9 * inner * here + 2 * here)
                stream = here
        return total + stream * 10

    def run(self, steps: int) -> None:
        while self.count() > self.limit and len(self.history) < steps:
            self._one_step()

    def _one_step(self) -> None:
        total = {name: np.zeros(g.size) for name, g in self.gates.items()}
        for part in self.batches:
            found = self._score_gradients(
                self.images[part], self.labels[part], tf.constant(self.teacher[part]), self.masks()
            )
            for name in total:
                total[name] += found[name].numpy()
        for name, g in self.gates.items():
            g.order = np.argsort(np.argsort(-total[name], kind="stable"), kind="stable")
        values = {name: self._value(g, np.sort(total[name])) for name, g in self.gates.items()}
        threshold = self._otsu(sorted(values.values()))
        marked = [g for name, g in self.gates.items() if values[name] <= threshold and g.rate > 0]
        best = min((self._try(g) for g in marked), key=lambda found: found[0])
        score, loss, logits, chosen, rate = best
        chosen.rate = rate
        self.history.append((chosen.name, np.flatnonzero(chosen.mask()).tolist(), loss, score))
        self.teacher = (self.teacher * self.counter + logits) / (self.counter + 1)
        self.counter += 1

    def _step_of(self, g: Gate) -> float:
        return max(1 / g.size, self.step / g.num_call)

    def _value(self, g: Gate, ascending: np.ndarray) -> float:
        n, step = g.size, self._step_of(g)
        return ascending[round((1 - g.rate) * n) : round((1 - g.rate + step) * n)].sum()

    @staticmethod
    def _otsu(values: list[float]) -> float:
        drop = int(np.ceil(0.2 * len(values)))
        middle = values[drop : len(values) - drop]
        n = len(middle)
        quality = [t * (n - t) * (np.mean(middle[:t]) - np.mean(middle[t:])) ** 2 for t in range(1, n - 1)]
        t = 1 + int(np.argmax(quality))
        return (middle[t - 1] + middle[t]) / 2

    def _try(self, g: Gate):
        before = g.rate
        g.rate = max(round(g.rate - self._step_of(g), 5), 0)
        if self.count() < self.limit:
            last = g.rate
            while self.count() <= self.limit:
                last, g.rate = g.rate, g.rate + 1 / g.size
            g.rate = last
        rate, logits = g.rate, self.logits()
        score = float(tf.reduce_mean(reward(self.labels, tf.constant(self.teacher, tf.float32), logits)))
        on_labels = tf.nn.sparse_softmax_cross_entropy_with_logits(self.labels, logits)
        g.rate = before
        return score, float(tf.reduce_mean(on_labels)), logits, g, rate


def reward(labels, teacher, logits):
    """CE(y, z) + CE(softmax(T̄), z), per sample."""
    target = tf.nn.softmax(teacher)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits) - tf.reduce_sum(
        target * tf.nn.log_softmax(logits), 1
    )
