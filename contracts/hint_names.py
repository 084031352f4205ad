"""The distillation shelf by name: which hints a click can use, and where. No torch: `rocket check` has none.

What a hint takes, learns and is told stands above its function (`contracts.declared_hints`).
"""

from collections.abc import Mapping
from functools import cache

from contracts.declared_hints import OF_LAYERS, OF_LOGITS, HintName, declared_hints
from contracts.errors import did_you_mean

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


@cache
def hint_names() -> Mapping[str, HintName]:
    """Every hint of the shelf by name, with what it declares.

    >>> hint_names()["fitnet"].learns
    'regressor'
    """
    return {name: declared.row for name, declared in declared_hints().items()}


def usable(setting: str) -> dict[str, HintName]:
    """The hints that can stand under `[rocket]` as "hint" or as "feature_hint".

    >>> [*usable("hint")]
    ['logit_mse', 'bernoulli_kl', 'bernoulli_kd', 'bernoulli_mse', 'weighted_bernoulli', 'dist_intra', 'bounded_click']
    """
    wanted = OF_LOGITS if setting == "hint" else OF_LAYERS
    return {name: row for name, row in hint_names().items() if row.takes in wanted and not row.instead}


def asks_hidden(name: str) -> bool:
    """Whether a feature hint compares hidden layers, so that both nets must give theirs.

    >>> asks_hidden("rkd"), asks_hidden("gradient_attention"), asks_hidden("none")
    (True, False, False)
    """
    return name in hint_names() and hint_names()[name].takes != "gradients"


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
    if name not in hint_names():
        return f"no such hint; {did_you_mean(name, fitting)}"
    row = hint_names()[name]
    if row.instead:
        place = "hint" if hint_names()[row.instead].takes in OF_LOGITS else "feature_hint"
        return f"{row.because or _MEANINGLESS[row.takes]}; take {place} = '{row.instead}' instead"
    if setting == "feature_hint":
        return f"it compares logits; set it as hint = '{name}'"
    what = "gradients by the embeddings" if row.takes == "gradients" else "hidden layers"
    return f"it compares {what}; set it as feature_hint = '{name}'"
