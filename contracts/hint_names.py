"""The distillation shelf by name: what each hint takes, and which of them a click can use. No torch: `rocket check`.

`model.hints.shelf` has the function of each name; a test holds both tables to the same names.
"""

from typing import Literal, NamedTuple

from contracts.errors import did_you_mean

#: What a hint compares, of both nets. B rows.
Takes = Literal[
    "logit",  # one logit a row, [B]
    "logit, label",  # and the label, [B]
    "classes",  # logits of two classes or more, [B, C]
    "classes, label",  # and the true class, [B]
    "hidden",  # a hidden layer of each, [B, D] and [B, E]
    "equal",  # a hidden layer of each, of equal width (or made so by a learned map), [B, D]
    "layers",  # two hidden layers of each, pairwise of equal width (or made so by learned maps)
    "maps",  # spatial maps, [B, C, H, W] and [B, E, H, W]
    "pixels",  # class logits of each pixel, [B, C, H, W]
    "tokens",  # a layer over a sequence, [B, T, N]
    "attention",  # attention scores over a sequence, [B, A, T, T]
    "gradients",  # gradients of each net's label loss by the same inputs, [B, X]
    "boxes",  # numbers of a box and the truth, [B, R]
    "bins",  # distributions over bins, [B, E, N]
    "picture",  # a generated one, or a layer of its generator, [B, C, H, W]
    "pictures",  # generated pictures, and a layer of each net
    "score",  # a discriminator's of the student, [B]
    "scores",  # and of the teacher, [B]
]


class HintName(NamedTuple):
    """What the app must know of a hint."""

    takes: Takes
    #: parameters of its own: maps to the teacher's widths; a paraphraser and a translator; such a map and a judge
    learns: Literal["", "regressor", "factors", "discriminator"] = ""
    instead: str = ""  #: what to take where it has no meaning; "": told by what it takes
    pairs: bool = False  #: it compares each row of the minibatch with each other one (`rocket.relation_rows`)

    @property
    def span(self) -> int:
        """How many of `rocket.feature_layers`, one after the other, one cost is made of."""
        return 2 if self.takes == "layers" else 1


_KD, _NST = "bernoulli_kd", "nst_polynomial"
#: Name -> what it needs. A new hint is one function, a row here, one in `model.hints.shelf`, and its golden row.
HINT_NAMES: dict[str, HintName] = {
    "logit_mse": HintName("logit"),
    "bernoulli_kl": HintName("logit"),
    "bernoulli_kd": HintName("logit"),
    "bernoulli_mse": HintName("logit"),
    "weighted_bernoulli": HintName("logit"),
    "dist_intra": HintName("logit"),
    "bounded_click": HintName("logit, label"),
    "class_logit_mse": HintName("classes", instead="logit_mse"),
    "softmax_mse": HintName("classes", instead="bernoulli_mse"),
    "kd": HintName("classes", instead=_KD),
    "weighted_soft_cross_entropy": HintName("classes", instead="weighted_bernoulli"),
    "dist": HintName("classes", instead="dist_intra"),
    "dkd": HintName("classes, label", instead=_KD),
    "cosine": HintName("equal"),
    "euclidean": HintName("equal"),
    "fitnet": HintName("equal", "regressor"),
    "activation_boundaries": HintName("equal", "regressor"),
    "factor_transfer": HintName("equal", "factors"),
    "reconstruction": HintName("equal", instead="factor_transfer"),
    "mmd_linear": HintName("equal", pairs=True),
    "mmd_polynomial": HintName("equal", pairs=True),
    "mmd_gaussian": HintName("equal", pairs=True),
    "nst_linear": HintName("hidden"),
    "nst_polynomial": HintName("hidden"),
    "nst_gaussian": HintName("hidden"),
    "rkd_distance": HintName("hidden", pairs=True),
    "rkd_angle": HintName("hidden", pairs=True),
    "rkd": HintName("hidden", pairs=True),
    "similarity_preserving": HintName("hidden", pairs=True),
    "pkt": HintName("hidden", pairs=True),
    "correlation_congruence": HintName("hidden", pairs=True),
    "fsp": HintName("layers", "regressor"),
    "attention_transfer": HintName("maps", instead=_NST),
    "attention_transfer_p1": HintName("maps", instead=_NST),
    "gradient_attention": HintName("gradients"),
    "pairwise": HintName("maps", instead="similarity_preserving"),
    "pixel_kl": HintName("pixels", instead=_KD),
    "adversarial": HintName("score", "discriminator"),
    "discriminator_loss": HintName("scores", instead="adversarial"),
    "layer_mse": HintName("tokens", instead="fitnet"),
    "attention_kl": HintName("attention", instead="similarity_preserving"),
    "teacher_bounded": HintName("boxes", instead="bounded_click"),
    "localization": HintName("bins", instead=_KD),
    "generator_distance": HintName("picture", instead="logit_mse"),
    "generator_features": HintName("picture", instead="fitnet"),
    "gan_compression": HintName("pictures", instead="fitnet"),
}

#: Why a hint that takes this has no meaning for a click.
_MEANINGLESS: dict[str, str] = {
    "classes": "it compares the scores of several classes, and a click has one logit",
    "classes, label": "it compares the scores of several classes, and a click has one logit",
    "maps": "it compares where in a picture the nets look, and these nets have no spatial maps",
    "pixels": "it compares the classes of pixels, and an impression has none",
    "tokens": "it compares layers over a sequence token by token, and the light net reads no sequence",
    "attention": "it compares attention over a sequence, and the light net has none",
    "boxes": "it is for numbers that have a truth, such as boxes, and a click has a label",
    "bins": "it compares numbers given as distributions over bins, and a click has one logit",
    "picture": "it compares generated pictures, and these nets judge clicks",
    "pictures": "it compares generated pictures, and these nets judge clicks",
    "scores": "it is what adversarial's discriminator learns from, not a hint of its own",
}
_WHY: dict[str, str] = {
    "dkd": "its non-target part compares the classes beside the true one, and one logit leaves none to compare",
    "dist": "its inter-class part correlates the classes of a row, and one logit leaves none to correlate",
    "softmax_mse": "it compares softmaxes over several classes, and a click has one logit",
    "kd": "its softmax is over several classes, and a click has one logit",
    "reconstruction": "it is what factor_transfer's paraphraser learns from, not a hint of its own",
}
OF_LOGITS = ("logit", "logit, label")
OF_LAYERS = ("hidden", "equal", "layers", "gradients", "score")


def usable(setting: str) -> dict[str, HintName]:
    """The hints that can stand under `[rocket]` as "hint" or as "feature_hint".

    >>> [*usable("hint")]
    ['logit_mse', 'bernoulli_kl', 'bernoulli_kd', 'bernoulli_mse', 'weighted_bernoulli', 'dist_intra', 'bounded_click']
    """
    wanted = OF_LOGITS if setting == "hint" else OF_LAYERS
    return {name: row for name, row in HINT_NAMES.items() if row.takes in wanted and not row.instead}


def asks_hidden(name: str) -> bool:
    """Whether a feature hint compares hidden layers, so that both nets must give theirs.

    >>> asks_hidden("rkd"), asks_hidden("gradient_attention"), asks_hidden("none")
    (True, False, False)
    """
    return name in HINT_NAMES and HINT_NAMES[name].takes != "gradients"


def hint_trouble(name: str, setting: str) -> str | None:
    """Why a hint cannot stand under `[rocket]` as this setting, and the mend; None where it can.

    Args:
        name: of the hint.
        setting: "hint" (between logits) or "feature_hint" (between hidden layers, or gradients).

    >>> hint_trouble("logit_mse", "hint"), hint_trouble("rkd", "feature_hint")
    (None, None)
    >>> hint_trouble("dkd", "hint")[-72:]
    "and one logit leaves none to compare; take hint = 'bernoulli_kd' instead"
    """
    fitting = usable(setting)
    if name in fitting or (name == "none" and setting == "feature_hint"):
        return None
    if name not in HINT_NAMES:
        return f"no such hint; {did_you_mean(name, fitting)}"
    row = HINT_NAMES[name]
    if row.instead:
        place = "hint" if HINT_NAMES[row.instead].takes in OF_LOGITS else "feature_hint"
        return f"{_WHY.get(name) or _MEANINGLESS[row.takes]}; take {place} = '{row.instead}' instead"
    if setting == "feature_hint":
        return f"it compares logits; set it as hint = '{name}'"
    what = "gradients by the embeddings" if row.takes == "gradients" else "hidden layers"
    return f"it compares {what}; set it as feature_hint = '{name}'"
