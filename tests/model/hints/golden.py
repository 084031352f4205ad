"""One golden row a hint: what its formula, written here in NumPy alone, says of fixed tensors.

The tensors: rows i, columns j, from 0; zs = sin(.7i + 1.3j + .1), zt = 1.5cos(.5i - .9j + .2), both [8, 4];
fs = sin(.3 i (j + 1) + .2j), ft = cos(.25 i (j + 1) - .15j), both [8, 6]; zl = sin(.7i + .1) - 1,
zb = 1.5cos(.5i + .2) - 1, both [8]. What is not a matrix is one of them in another shape.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tests.model.hints.formulas import (
    Array,
    angle,
    attended,
    attention,
    bar,
    bernoulli,
    boundaries,
    bounded,
    correlations,
    decoupled,
    discrepancy,
    distance,
    factors,
    flat_norm,
    flat_sum,
    flows,
    kl,
    knowledge,
    length,
    neighbours,
    pixels,
    places,
    sigmoid,
    similar,
    softmax,
    taylor,
    weighted,
)

_I, _J = np.arange(8.0)[:, None], np.arange(6.0)
ZS, ZT = np.sin(0.7 * _I + 1.3 * _J[:4] + 0.1), 1.5 * np.cos(0.5 * _I - 0.9 * _J[:4] + 0.2)
FS, FT = np.sin(0.3 * _I * (_J + 1) + 0.2 * _J), np.cos(0.25 * _I * (_J + 1) - 0.15 * _J)
ZL, ZB = np.sin(0.7 * _I[:, 0] + 0.1) - 1, 1.5 * np.cos(0.5 * _I[:, 0] + 0.2) - 1


class Sample(NamedTuple):
    """What a hint is called with."""

    student: tuple[Array, ...]
    teacher: tuple[Array, ...]
    told: tuple[Array, ...] = ()


def fixed(takes: str) -> Sample:
    """The tensors above, in the shapes of what a hint takes."""
    click, four = np.arange(8) % 2 * 1.0, np.arange(8) % 4

    def both(shape: tuple[int, ...], s: Array = FS, t: Array = FT) -> Sample:
        return Sample((s.reshape(shape),), (t.reshape(shape),))

    return {
        "logit": Sample((ZL,), (ZB,)),
        "logit, label": Sample((ZL,), (ZB,), (click,)),
        "classes": Sample((ZS,), (ZT,)),
        "classes, label": Sample((ZS,), (ZT,), (four,)),
        "hidden": Sample((FS,), (FT,)),
        "equal": Sample((FS,), (FT,)),
        "layers": Sample((FS[:, :4], FS[:, 4:]), (FT[:, :4], FT[:, 4:])),
        "maps": both((2, 4, 2, 3)),
        "pixels": both((2, 4, 2, 2), ZS, ZT),
        "tokens": both((2, 4, 6)),
        "attention": both((2, 1, 4, 4), ZS, ZT),
        "gradients": Sample((FS,), (FT,)),
        "boxes": Sample((ZS,), (ZT,), (FS[:, :4],)),
        "bins": both((2, 4, 4), ZS, ZT),
        "picture": both((2, 4, 2, 3)),
        "pictures": Sample((ZS.reshape(8, 1, 2, 2), FS), (ZT.reshape(8, 1, 2, 2), FT)),
        "score": Sample((ZL,), ()),
        "scores": Sample((ZL,), (ZB,)),
    }[takes]


def drawn(takes: str, rng: np.random.Generator, rows: int = 7) -> Sample:
    """Random tensors of what a hint takes; other widths of the teacher where it may have them."""

    def normal(*shape: int) -> Array:
        return rng.normal(size=(rows, *shape))

    def pair(student: tuple[int, ...], teacher: tuple[int, ...] | None = None) -> Sample:
        return Sample((normal(*student),), (normal(*(student if teacher is None else teacher)),))

    shapes: dict[str, Callable[[], Sample]] = {
        "logit": lambda: pair(()),
        "logit, label": lambda: Sample((normal(),), (normal(),), (rng.integers(0, 2, rows) * 1.0,)),
        "classes": lambda: pair((5,)),
        "classes, label": lambda: Sample((normal(5),), (normal(5),), (rng.integers(0, 5, rows),)),
        "hidden": lambda: pair((4,), (6,)),
        "equal": lambda: pair((5,)),
        "layers": lambda: Sample((normal(3), normal(4)), (normal(3), normal(4))),
        "maps": lambda: pair((3, 2, 3), (4, 2, 3)),
        "pixels": lambda: pair((3, 2, 2)),
        "tokens": lambda: pair((3, 4)),
        "attention": lambda: pair((2, 3, 3)),
        "gradients": lambda: pair((4,)),
        "boxes": lambda: Sample((normal(4),), (normal(4),), (normal(4),)),
        "bins": lambda: pair((4, 5)),
        "picture": lambda: pair((2, 2, 2)),
        "pictures": lambda: Sample((normal(2, 2, 2), normal(3, 2, 1)), (normal(2, 2, 2), normal(3, 2, 1))),
        "score": lambda: Sample((normal(),), ()),
        "scores": lambda: pair(()),
    }
    return shapes[takes]()


class Golden(NamedTuple):
    """What a hint must give."""

    value: float  #: the mean of the costs of the fixed tensors
    formula: Callable[..., Array]
    options: Mapping[str, Any] = MappingProxyType({})  #: of the hint, for `value` and `formula`, where not the defaults
    blind: frozenset[str] = frozenset()  #: changes of the student's layer (test_invariances) that the hint does not see


#: What comparisons between rows do not see, and those between neurons; directions have no length.
_SHAPE = frozenset({"rotation", "scale", "order of neurons", "sign"})
_NEURONS = frozenset({"scale", "order of neurons"})
_LENGTH = frozenset({"scale", "length of each row"})
_ROWS = _LENGTH | {"order of rows"}


#: Hint -> its golden rows: the default first, then the other scalings.
GOLDEN: dict[str, tuple[Golden, ...]] = {
    "logit_mse": (Golden(0.7251974035984775, lambda s, t: (s - t) ** 2),),
    "bernoulli_kl": (Golden(0.06695288155851344, lambda s, t: bernoulli(s, t, 1)),),
    "bernoulli_kd": (
        Golden(0.0883496503130399, lambda s, t: bernoulli(s, t, 4)),
        Golden(0.08236856477459621, lambda s, t: bernoulli(s, t, 2), {"temperature": 2.0}),
    ),
    "bernoulli_mse": (
        Golden(0.056988860942142644, lambda s, t: 2 * (sigmoid(s) - sigmoid(t)) ** 2),
        Golden(0.028494430471071322, lambda s, t: (sigmoid(s) - sigmoid(t)) ** 2, {"scaling": "mean"}),
    ),
    "weighted_bernoulli": (
        Golden(
            0.6739822049431757, lambda s, t: -sigmoid(t) * np.log(sigmoid(s)) - 1.5 * sigmoid(-t) * np.log(sigmoid(-s))
        ),
    ),
    "dist_intra": (
        Golden(0.41591827419479277, lambda s, t: np.array(1 - np.corrcoef(sigmoid(s), sigmoid(t))[0, 1])),
        Golden(
            1.3165510848946997,
            lambda s, t: np.array(4 - 4 * np.corrcoef(sigmoid(s / 2), sigmoid(t / 2))[0, 1]),
            {"temperature": 2.0},
        ),
    ),
    "bounded_click": (Golden(0.257131272218739, bounded),),
    "class_logit_mse": (
        Golden(4.501364331871981, lambda s, t: ((s - t) ** 2).sum(1)),
        Golden(2.2506821659359906, lambda s, t: ((s - t) ** 2).sum(1) / 2, {"scaling": "half"}),
        Golden(1.1253410829679955, lambda s, t: ((s - t) ** 2).mean(1), {"scaling": "mean"}),
    ),
    "softmax_mse": (
        Golden(0.14523991962764, lambda s, t: ((softmax(s) - softmax(t)) ** 2).sum(1)),
        Golden(0.03630997990691, lambda s, t: ((softmax(s) - softmax(t)) ** 2).mean(1), {"scaling": "mean"}),
    ),
    "kd": (
        Golden(0.3388857389486591, lambda s, t: 16 * kl(softmax(t / 4), softmax(s / 4))),
        Golden(
            0.08024811430484388,
            lambda s, t: 4 * kl(softmax(t / 2), softmax(s / 2)) / s.shape[1],
            {"temperature": 2.0, "scaling": "elements"},
        ),
    ),
    "weighted_soft_cross_entropy": (Golden(1.4949390409660164, weighted),),
    "dist": (Golden(1.4039414737401232, correlations),),
    "dkd": (Golden(2.1400363457309677, decoupled),),
    "cosine": (Golden(0.3293273226987462, lambda s, t: 1 - (s / length(s) * t / length(t)).sum(1), blind=_LENGTH),),
    "euclidean": (
        Golden(0.3624340821538693, lambda s, t: ((s - t) ** 2).mean(1)),
        Golden(2.1746044929232156, lambda s, t: ((s - t) ** 2).sum(1), {"scaling": "sum"}),
        Golden(1.402669556577057, flat_norm, {"scaling": "norm"}),
    ),
    "fitnet": (
        Golden(1.0873022464616078, lambda s, t: ((s - t) ** 2).sum(1) / 2),
        Golden(0.36243408215386924, lambda s, t: ((s - t) ** 2).mean(1), {"scaling": "mean"}),
    ),
    "activation_boundaries": (
        Golden(3.3276194133474335, boundaries),
        Golden(0.0099828582400423, lambda s, t: boundaries(s, t) * 0.003, {"scaling": "repdistiller"}),
    ),
    "factor_transfer": (
        Golden(1.4963588004412938, factors, blind=_LENGTH),
        Golden(
            0.6586546453974926,
            lambda s, t: ((s / length(s) - t / length(t)) ** 2).sum(1),
            {"power": 2, "scaling": "sum"},
        ),
        Golden(0.763276881248495, lambda s, t: length(s / length(s) - t / length(t))[:, 0], {"power": 2}),
        Golden(
            0.10977577423291542,
            lambda s, t: ((s / length(s) - t / length(t)) ** 2).mean(1),
            {"power": 2, "scaling": "mean"},
        ),
    ),
    "reconstruction": (Golden(2.1746044929232156, lambda s, t: ((s - t) ** 2).sum(1)),),
    "mmd_linear": (Golden(0.052939712512889064, discrepancy("linear"), blind=_ROWS),),
    "mmd_polynomial": (Golden(0.05778529518387504, discrepancy("polynomial"), blind=_ROWS | {"sign"}),),
    "mmd_gaussian": (
        Golden(0.027204129286257483, discrepancy("gaussian"), blind=_ROWS),
        Golden(0.026803245848220802, discrepancy("gaussian", across=True), {"spread": "across"}),
    ),
    "nst_linear": (Golden(0.14933338876057195, lambda s, t: discrepancy("linear")(s.T, t.T), blind=_NEURONS),),
    "nst_polynomial": (
        Golden(0.10057793275288068, lambda s, t: discrepancy("polynomial")(s.T, t.T), blind=_NEURONS | {"sign"}),
    ),
    "nst_gaussian": (Golden(0.06846426921985271, lambda s, t: discrepancy("gaussian")(s.T, t.T), blind=_NEURONS),),
    "rkd_distance": (
        Golden(0.018548823159512267, distance, blind=_SHAPE | {"shift"}),
        Golden(1.1871246822087866, lambda s, t: distance(s, t) * len(s) ** 2, {"scaling": "sum"}),
    ),
    "rkd_angle": (
        Golden(0.04534912608217755, angle, blind=_SHAPE | {"shift"}),
        Golden(23.218752554074907, lambda s, t: angle(s, t) * len(s) ** 3, {"scaling": "sum"}),
    ),
    "rkd": (
        Golden(0.1092470753238674, lambda s, t: distance(s, t) + 2 * angle(s, t), blind=_SHAPE | {"shift"}),
        Golden(
            2.731176883096685, lambda s, t: 25 * distance(s, t) + 50 * angle(s, t), {"distance": 25.0, "angle": 50.0}
        ),
        Golden(
            47.624629790358604,
            lambda s, t: distance(s, t) * len(s) ** 2 + 2 * angle(s, t) * len(s) ** 3,
            {"scaling": "sum"},
        ),
    ),
    "similarity_preserving": (
        Golden(0.037357957476652014, lambda s, t: ((similar(s) - similar(t)) ** 2).mean(), blind=_SHAPE),
    ),
    "pkt": (
        Golden(0.0040041738601628045, knowledge, blind=_SHAPE | _LENGTH),
        Golden(0.2562671270504194, lambda s, t: knowledge(s, t) * len(s) ** 2, {"scaling": "sum"}),
    ),
    "correlation_congruence": (
        Golden(0.008308599977336108, lambda s, t: ((taylor(s) - taylor(t)) ** 2).mean(), blind=_SHAPE | _LENGTH),
        Golden(1.277533064326754, neighbours, {"scaling": "neighbours"}),
    ),
    "fsp": (
        Golden(2.7562213567535814, flows),
        Golden(
            0.34452766959419767, lambda a, b, c, d: flows(a, b, c, d) / (a.shape[1] * b.shape[1]), {"scaling": "mean"}
        ),
    ),
    "attention_transfer": (
        Golden(0.4896049964940466, attention(2)),
        Golden(0.8697144808823903, lambda s, t: np.abs(attended(s) - attended(t)).sum(1), {"norm": 1}),
        Golden(0.04282458936372164, lambda s, t: attention(2)(s, t) ** 2 / s[0, 0].size, {"scaling": "mean"}),
    ),
    "attention_transfer_p1": (
        Golden(0.33744981059632084, attention(1)),
        Golden(0.020011082416909354, lambda s, t: attention(1)(s, t) ** 2 / s[0, 0].size, {"scaling": "mean"}),
    ),
    "gradient_attention": (
        Golden(1.402669556577057, flat_norm),
        Golden(2.1746044929232156, lambda s, t: flat_norm(s, t) ** 2, {"scaling": "square"}),
    ),
    "pairwise": (Golden(0.26390031115838847, places),),
    "pixel_kl": (Golden(0.3040426291059012, pixels),),
    "adversarial": (Golden(0.9318975534404335, lambda s: -s),),
    "discriminator_loss": (Golden(0.3232048293353207, lambda s, t: s - t),),
    "layer_mse": (Golden(0.3624340821538693, lambda s, t: ((s - t) ** 2).mean((1, 2))),),
    "attention_kl": (Golden(0.2798511177827756, lambda s, t: kl(softmax(t), softmax(s)).mean((1, 2))),),
    "teacher_bounded": (Golden(1.2091539736339203, bar),),
    "localization": (
        Golden(1.3899586329506155, lambda s, t: 100 * kl(softmax(t / 10), softmax(s / 10)).sum(1)),
        Golden(
            0.3474896582376539, lambda s, t: 100 * kl(softmax(t / 10), softmax(s / 10)).mean(1), {"scaling": "mean"}
        ),
        Golden(
            0.08687241455941347,
            lambda s, t: 100 * kl(softmax(t / 10), softmax(s / 10)).mean(1) / s.shape[2],
            {"scaling": "elements"},
        ),
    ),
    "generator_distance": (
        Golden(10.971241259028837, flat_sum),
        Golden(0.4571350524595348, lambda s, t: flat_sum(s, t) / s[0].size, {"scaling": "mean"}),
    ),
    "generator_features": (
        Golden(2.876572312121052, flat_norm),
        Golden(0.3624340821538693, lambda s, t: flat_norm(s, t) ** 2 / s[0].size, {"scaling": "mean"}),
    ),
    "gan_compression": (
        Golden(37.344921809372934, lambda s, f, t, g: 10 * flat_sum(s, t) + flat_norm(f, g)),
        Golden(
            9.347997145352839,
            lambda s, f, t, g: 10 * flat_sum(s, t) / s[0].size + flat_norm(f, g) ** 2 / f[0].size,
            {"scaling": "mean"},
        ),
    ),
}
