"""Losses on feature maps as their papers write them, sample by sample, in float64 NumPy."""

import numpy as np


def maps(seed: int, *shapes) -> list[np.ndarray]:
    """As after ReLU, float32."""
    rng = np.random.default_rng(seed)
    return [np.maximum(rng.normal(0.2, 1, shape), 0).astype(np.float32) for shape in shapes]


def pooled(x, height, width):
    """AdaptiveAvgPool2d of PyTorch's manual: a window from floor(i·n/m) to ceil((i+1)·n/m) − 1."""
    x, (h, w) = np.asarray(x, np.float64), x.shape[1:3]

    def span(i, size, cells):
        return slice(int(np.floor(i * size / cells)), int(np.ceil((i + 1) * size / cells)))

    rows = [
        [x[:, span(i, h, height), span(j, w, width)].mean((1, 2)) for j in range(width)]
        for i in range(height)
    ]
    return np.array(rows).transpose(2, 0, 1, 3)


def rows_of_unit_norm(x):
    return np.array([row / np.linalg.norm(row) for row in x])


def a(x):
    return rows_of_unit_norm((np.asarray(x, np.float64) ** 2).mean(-1).reshape(len(x), -1))


def m(rows):
    rows = np.asarray(rows, np.float64)
    return rows_of_unit_norm([[x @ y for y in rows] for x in rows])


def at_of_two(t, s, size=None):
    size = size or [min(n, k) for n, k in zip(t.shape[1:3], s.shape[1:3], strict=True)]
    return ((a(pooled(t, *size)) - a(pooled(s, *size))) ** 2).mean()


def hap_of_two(t, s):
    return ((m(a(t)) - m(a(s))) ** 2).mean()


def mat_of_one(teachers, s, weighed_at=None):
    """With the weights that another student has, if one is given."""
    d = np.array([at_of_two(t, s, t.shape[1:3]) for t in teachers])
    at = d if weighed_at is None else [at_of_two(t, weighed_at, t.shape[1:3]) for t in teachers]
    weights = np.exp(-np.asarray(at) / np.mean(at))
    return (d * weights / weights.sum()).mean()


def by_the_formula(key, teacher, student, window=99):
    b = len(student[0])
    return {
        "at": lambda: sum(at_of_two(t, s) for t, s in zip(teacher, student, strict=True)),
        "sp": lambda: (
            np.linalg.norm(m(teacher[-1].reshape(b, -1)) - m(student[-1].reshape(b, -1))) ** 2 / b**2
        ),
        "asp": lambda: np.linalg.norm(m(a(teacher[-1])) - m(a(student[-1]))) ** 2 / b**2,
        "hap": lambda: np.mean([hap_of_two(t, s) for s in student for t in teacher[-3:]]),
        "lsp2": lambda: np.mean(  # blocks of teacher and student correspond: for 3, i − 1, i, i + 1
            [
                np.mean([hap_of_two(t, s) for t in teacher[max(i - (window - 1) // 2, 0) :][:window]])
                for i, s in enumerate(student)
            ]
        ),
        "mat": lambda: np.mean([mat_of_one(teacher, s) for s in student]),
    }[key]()


def frozen_mat(teacher, moved, student):
    return np.mean([mat_of_one(teacher, new, old) for new, old in zip(moved, student, strict=True)])
