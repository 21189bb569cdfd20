"""Losses of logits and of pooled vectors by their papers' formulas, in float64 NumPy, one pair at a time."""

import numpy as np
import tensorflow as tf


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def kd(t, s, labels=None, temperature=4.0):
    return temperature**2 * kl(softmax(t / temperature), softmax(s / temperature)).mean()


def kd_std(t, s, labels=None):
    z = [(x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) for x in (t, s)]
    return kd(*z, temperature=2.0)


def dkd(t, s, labels, alpha=1.0, beta=8.0):
    total = 0.0
    for row_t, row_s, y in zip(t, s, labels, strict=True):
        p, q = softmax(row_t / 4), softmax(row_s / 4)
        tckd = kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        nckd = kl(np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y]))
        total += 16 * (alpha * tckd + beta * nckd) / len(t)
    return total


def dist(t, s, labels=None):
    p, q = softmax(t / 4), softmax(s / 4)
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return 16 * (2 * rows + 2 * columns)


def rkd(t, s, labels=None):
    def far(x):
        d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return d / d[d > 0].mean()

    def cosine(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / norms if norms else 0.0

    def huber(d):
        return np.where(abs(d) <= 1, d * d / 2, abs(d) - 0.5).mean()

    n = range(len(t))
    angle = np.array([cosine(t, i, j, k) - cosine(s, i, j, k) for i in n for j in n for k in n])
    return 25 * huber(far(t) - far(s)) + 50 * huber(angle)


def case(seed: int, batch=4, classes=5, teachers=None, scale=3.0):
    """Teacher (b, classes) or (b, classes, teachers), student and labels, in float64."""
    rng = np.random.default_rng(seed)
    shape = (batch, classes) if teachers is None else (batch, classes, teachers)
    return (
        rng.normal(size=shape) * scale,
        rng.normal(size=(batch, classes)) * scale,
        rng.integers(0, classes, batch),
    )


def loss_of(loss, teacher, student, labels=None) -> float:
    return float(loss.compute_loss(tf.constant(teacher), tf.constant(student), labels))


def gradient_of(loss, teacher, student, labels=None) -> np.ndarray:
    student = tf.constant(student, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(tf.constant(teacher, tf.float32), student, labels)
    return tape.gradient(value, student).numpy()
