"""What `rocket bench hints` compares: every loss that `[rocket]` can name, and every scheme."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.app import App
from contracts.errors import RocketError, did_you_mean
from contracts.hint_names import asks_hidden, hint_names, usable
from contracts.model_checks import hidden_widths
from contracts.schemes import FROM_CHECKPOINT

LIGHT, ROCKET = "light alone", "rocket"


@dataclass(frozen=True)
class Method:
    """One row of the table to be."""

    name: str
    kind: str  #: "yardstick", "hint", "feature hint" or "scheme"
    settings: Mapping[str, Any] = field(default_factory=dict)  #: laid over the app's
    weight: str | None = None  #: the setting of `[rocket]` that `balance` finds; None: as it is
    taught: bool = False  #: whether `rocket.teacher` is the rocket run of the same seed


def methods_of(app: App, *, train_rows: int) -> list[Method]:
    """All of them; the first two are what the others are compared with: no booster, and the app as it ships.

    Hints stand in the place of the app's hint between logits, feature hints too (lambda of the logits is 0), so that
    each says what it does by itself. Schemes have their papers' loss and weight.

    Args:
        app: whose nets are to be compared.
        train_rows: that will be learnt; born-again generations are a quarter of them.
    """
    yardsticks = [
        Method(LIGHT, "yardstick", {"model": {"booster": {"kind": "none"}}}),
        Method(ROCKET, "yardstick"),
    ]
    hints = [Method(name, "hint", {"rocket": {"hint": name}}, "hint_weight") for name in usable("hint")]
    layers = [
        Method(name, "feature hint", _feature_settings(app, name, train_rows), "feature_weight")
        for name in usable("feature_hint")
        if _comparable(app, name)
    ]
    return [*yardsticks, *hints, *layers, *_schemes(train_rows)]


def chosen(methods: Sequence[Method], names: Sequence[str] | None) -> list[Method]:
    """The methods of these names, and both that they are compared with; all of them where no names are given.

    Raises:
        RocketError: there is no method of a name.
    """
    known = {method.name for method in methods}
    for name in names or ():
        if name not in known:
            raise RocketError(f"--variants: no method '{name}' on this app; {did_you_mean(name, known)}")
    return [method for method in methods if names is None or method.name in {LIGHT, ROCKET, *names}]


def _feature_settings(app: App, name: str, train_rows: int) -> dict[str, Any]:
    """A feature hint alone: on gradients the tables are shared, which they need; else on the layers that suit it."""
    rocket: dict[str, Any] = {"hint_weight": 0.0, "feature_hint": name, "factor_rows": train_rows // 8}
    if not asks_hidden(name):
        return {"model": {"sharing": "shared"}, "rocket": rocket}
    pairs = _last_two(app) if hint_names()[name].span == 2 else _pair_of(app)
    return {"rocket": rocket | {"feature_layers": pairs}}


def _schemes(train_rows: int) -> list[Method]:
    kl = {"hint": "bernoulli_kl", "hint_weight": 1.0}
    settings: dict[str, dict[str, Any]] = {
        "offline": {},
        "rocket_kd": {},
        "born_again": kl | {"generation_rows": max(train_rows // 4, 1)},
        "mutual": kl,
        "one": {"hint": "bernoulli_kd", "hint_temperature": 3.0, "hint_weight": 1.0},
        "own_teacher": kl,
        "net_aug": {"hint_weight": 1.0},
    }
    return [
        Method(f"scheme {name}", "scheme", {"rocket": {"scheme": name, **told}}, taught=name in FROM_CHECKPOINT[:2])
        for name, told in settings.items()
    ]


def _pair_of(app: App) -> list[list[int]]:
    """The deepest pair of layers of equal width; the deepest of each net where no two are equal."""
    lights, boosters = _widths(app)
    equal = [[i, j] for i, a in enumerate(lights) for j, b in enumerate(boosters) if a == b]
    return [equal[-1] if equal else [len(lights) - 1, len(boosters) - 1]]


def _last_two(app: App) -> list[list[int]]:
    """The deepest two layers of each net."""
    lights, boosters = (len(widths) for widths in _widths(app))
    return [[lights - 2, boosters - 2], [lights - 1, boosters - 1]]


def _comparable(app: App, name: str) -> bool:
    """Whether the app's nets have layers that this hint can compare."""
    lights, boosters = _widths(app)
    row = hint_names()[name]
    if not asks_hidden(name):
        return True
    deep = min(len(lights), len(boosters)) >= row.span
    return deep and (row.takes != "equal" or bool(row.learns) or bool({*lights} & {*boosters}))


def _widths(app: App) -> tuple[tuple[int, ...], tuple[int, ...]]:
    model = app.config.model
    return model.light.layers, hidden_widths(model.booster, model.embedding_dim) or ()
