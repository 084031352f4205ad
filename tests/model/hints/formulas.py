"""The formulas of the golden rows: NumPy alone, pair by pair where that is plainest."""

from collections.abc import Callable
from itertools import product
from math import exp, factorial
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def softmax(z: Array, axis: int = -1) -> Array:
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def length(x: Array, axis: int = -1) -> Array:
    return np.sqrt((x * x).sum(axis, keepdims=True))


def kl(p: Array, q: Array) -> Array:
    return (p * np.log(p / q)).sum(-1)


def bernoulli(zl: Array, zb: Array, t: float) -> Array:
    p, q = sigmoid(zl / t), sigmoid(zb / t)
    return t * t * (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))


def cross(z: Array, y: Array) -> Array:
    return -(y * np.log(sigmoid(z)) + (1 - y) * np.log(1 - sigmoid(z)))


def bounded(zl: Array, zb: Array, y: Array) -> Array:
    return np.array([a if a > b else 0.0 for a, b in zip(cross(zl, y), cross(zb, y), strict=True)])


def weighted(zs: Array, zt: Array) -> Array:
    w = np.array([1.5] + [1.0] * (zs.shape[1] - 1))
    return -(w * softmax(zt) * np.log(softmax(zs))).sum(1)


def decoupled(zs: Array, zt: Array, own: Array) -> Array:
    costs = []
    for s, t, k in zip(zs / 4, zt / 4, own, strict=True):
        ps, pt = softmax(s), softmax(t)
        target = kl(np.array([pt[k], 1 - pt[k]]), np.array([ps[k], 1 - ps[k]]))
        others = kl(softmax(np.delete(t, k)), softmax(np.delete(s, k)))
        costs.append(16 * (target + 8 * others))
    return np.array(costs)


def correlations(zs: Array, zt: Array) -> Array:
    ps, pt = softmax(zs), softmax(zt)
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(ps, pt, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(ps.T, pt.T, strict=True)])
    return np.array(inter + intra)


def boundaries(fs: Array, ft: Array) -> Array:
    on, off = np.maximum(0, 1 - fs), np.maximum(0, 1 + fs)
    return (np.where(ft > 0, on, off) ** 2).sum(1)


def factors(fs: Array, ft: Array) -> Array:
    return np.abs(fs / length(fs) - ft / length(ft)).sum(1)


def discrepancy(kernel: str, *, across: bool = False) -> Callable[[Array, Array], Array]:
    def mean(k: Callable[[Array, Array], float], x: Array, y: Array) -> float:
        return float(np.mean([k(a, b) for a, b in product(x, y)]))

    def formula(x: Array, y: Array) -> Array:
        x, y = x / length(x), y / length(y)
        both = np.concatenate((x, y))
        pairs = product(x, y) if across else product(both, both)
        spread = np.mean([((a - b) ** 2).sum() for a, b in pairs])
        k: Callable[[Array, Array], float] = {
            "linear": lambda a, b: float(a @ b),
            "polynomial": lambda a, b: float(a @ b) ** 2,
            "gaussian": lambda a, b: exp(-((a - b) ** 2).sum() / (2 * spread)),
        }[kernel]
        return np.array(mean(k, x, x) + mean(k, y, y) - 2 * mean(k, x, y))

    return formula


def huber(d: Array) -> Array:
    return np.where(np.abs(d) < 1, d * d / 2, np.abs(d) - 0.5)


def relative(f: Array) -> Array:
    d = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in f] for a in f])
    return d / d[d > 0].mean()


def angles(f: Array) -> Array:
    cosines = np.zeros((len(f),) * 3)
    for j, i, k in product(range(len(f)), repeat=3):
        a, b = f[i] - f[j], f[k] - f[j]
        if i != j and k != j:
            cosines[j, i, k] = a @ b / np.sqrt((a @ a) * (b @ b))
    return cosines


def distance(fs: Array, ft: Array) -> Array:
    return huber(relative(fs) - relative(ft)).mean()


def angle(fs: Array, ft: Array) -> Array:
    return huber(angles(fs) - angles(ft)).mean()


def similar(f: Array) -> Array:
    return f @ f.T / length(f @ f.T)


def densities(f: Array) -> Array:
    n = f / (length(f) + 1e-7)
    near = (n @ n.T + 1) / 2
    return near / near.sum(1, keepdims=True)


def knowledge(fs: Array, ft: Array) -> Array:
    ps, pt = densities(fs), densities(ft)
    return (pt * np.log((pt + 1e-7) / (ps + 1e-7))).mean()


def taylor(f: Array) -> Array:
    c = (f / length(f)) @ (f / length(f)).T
    return sum((exp(-0.8) * 0.8**p / factorial(p) * c**p for p in range(3)), np.zeros_like(c))


def neighbours(fs: Array, ft: Array) -> Array:
    apart = np.abs(fs - ft)
    return np.mean([apart[i] @ apart[i + 1] for i in range(len(fs) - 1)])


def flows(a: Array, b: Array, c: Array, d: Array) -> Array:
    return np.array([((np.outer(a[i], b[i]) - np.outer(c[i], d[i])) ** 2).sum() for i in range(len(a))])


def attended(f: Array, power: int = 2) -> Array:
    q = (np.abs(f) ** power).sum(1).reshape(len(f), -1)
    return q / length(q)


def attention(power: int) -> Callable[[Array, Array], Array]:
    return lambda fs, ft: length(attended(fs, power) - attended(ft, power))[:, 0]


def places(fs: Array, ft: Array) -> Array:
    def near(f: Array) -> Array:
        x = f.reshape(f.shape[0], f.shape[1], -1)
        x = x / length(x, 1)
        return np.einsum("bcp,bcq->bpq", x, x)

    return ((near(fs) - near(ft)) ** 2).mean((1, 2))


def pixels(zs: Array, zt: Array) -> Array:
    ps, pt = softmax(zs, 1), softmax(zt, 1)
    return (pt * np.log(pt / ps)).sum(1).mean((1, 2))


def bar(rs: Array, rt: Array, truth: Array) -> Array:
    far, allowed = ((rs - truth) ** 2).sum(1), ((rt - truth) ** 2).sum(1)
    return far * (far > allowed)


def flat_norm(x: Array, y: Array) -> Array:
    return length((x - y).reshape(len(x), -1))[:, 0]


def flat_sum(x: Array, y: Array) -> Array:
    return np.abs(x - y).reshape(len(x), -1).sum(1)
