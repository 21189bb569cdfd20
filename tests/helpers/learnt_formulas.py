"""Losses with trainable parts as their papers write them, in float64 NumPy; w holds the parts by name."""

import numpy as np

from tests.helpers.map_formulas import pooled


def norm(x, gamma, beta):
    """Batch normalisation of (samples, …, c) in training, epsilon 1e-5."""
    axes = tuple(range(x.ndim - 1))
    return gamma * (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) + beta


def value(x, size):
    """Mean of squares over channels, pooled, as rows of unit norm."""
    rows = pooled((x**2).mean(-1, keepdims=True), *size).reshape(len(x), -1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def projections(w, role, blocks, units):
    """BN(W·pooled) of each block, with the batch norm of its own."""
    kernels = [
        k for name in sorted(n for n in w if n.startswith(f"{role}_") and n[-1].isdigit()) for k in w[name]
    ]
    gamma, beta = (w[f"{role}_norm/{n}"].reshape(len(blocks), units) for n in ("gamma", "beta"))
    return [norm(x.mean((1, 2)) @ k, g, b) for x, k, g, b in zip(blocks, kernels, gamma, beta, strict=True)]


def afd_by_the_paper(w, teacher, student, units):
    teacher, student = [np.float64(t) for t in teacher], [np.float64(s) for s in student]
    queries = projections(w, "query", teacher, units)
    keys = np.array([np.maximum(k, 0) for k in projections(w, "key", student, units)])  # (s, b, units)
    links = norm(keys @ w["links"], w["link_norm/gamma"], w["link_norm/beta"])
    total = 0.0
    for t, (target, query) in enumerate(zip(teacher, queries, strict=True)):
        own_keys = links[..., t * units : (t + 1) * units]
        places = w["student_places"] @ w["teacher_places"][t]
        scores = ((own_keys * query).sum(-1) + places[:, None]) / np.sqrt(units)  # (s, b)
        alpha = np.exp(scores) / np.exp(scores).sum(0)
        size = target.shape[1:3]
        gaps = np.array([((value(s, size) - value(target, size)) ** 2).mean(1) for s in student])
        total += (alpha * gaps).sum(0).mean()
    return total


def conv3(x, kernel):
    """3×3 convolution with zeros around."""
    b, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def nearest(x, height, width):
    return x[:, np.arange(height) * x.shape[1] // height][:, :, np.arange(width) * x.shape[2] // width]


def hcl(t, s):
    total, weight, weights_ = ((t - s) ** 2).mean(), 1.0, 1.0
    for side in (4, 2, 1):
        if side < s.shape[1]:
            weight /= 2
            total += weight * ((pooled(t, side, side) - pooled(s, side, side)) ** 2).mean()
            weights_ += weight
    return total / weights_


def review_by_the_paper(w, teacher, student):
    teacher, student = ([*map(np.float64, side)] for side in (teacher, student))
    teacher, student = ([*side, side[-1].mean((1, 2), keepdims=True)] for side in (teacher, student))
    total, deeper = 0.0, None
    for i, (t, s) in enumerate(zip(teacher[::-1], student[::-1], strict=True)):

        def part(name, i=i):
            return w[f"fusion_{i}/{name}"]

        x = norm(s @ part("narrow/kernel")[0, 0], part("narrow_norm/gamma"), part("narrow_norm/beta"))
        if deeper is not None:
            y = nearest(deeper, *s.shape[1:3])
            z = np.concatenate([x, y], -1) @ part("gate/kernel")[0, 0] + part("gate/bias")
            z = 1 / (1 + np.exp(-z))
            x = x * z[..., :1] + y * z[..., 1:]
        deeper = nearest(x, *t.shape[1:3])
        out = norm(conv3(deeper, part("widen/kernel")), part("widen_norm/gamma"), part("widen_norm/beta"))
        total += hcl(t, out)
    return total


def fitnet_by_the_paper(w, teacher, student):
    """The middle of three."""
    t, s = np.float64(teacher[1]), np.float64(student[1]) @ w["kernel"] + w["bias"]
    size = [min(n, k) for n, k in zip(t.shape[1:3], s.shape[1:3], strict=True)]
    return ((pooled(t, *size) - pooled(s, *size)) ** 2).mean()
