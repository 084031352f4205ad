"""The models of the study by name: what each changes in the app as it ships, and what it is compared with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from contracts.app import App, laid_over
from contracts.errors import RocketError, did_you_mean
from contracts.features import Feature

#: The light net alone, on the app's own light features: what every gain is over, unless a variant says otherwise.
LIGHT, BOOSTER, ROCKET = "light alone", "booster alone", "rocket"
PLAIN = f"{ROCKET}, without rows for pairs"  #: on simulated ads
#: What else learns the rows: on simulated ads, and on a log.
SIMULATED = ("linear", "truth")
LOGGED = tuple(f"{model}, {fields}" for model in ("hashed LR (FTRL)", "LightGBM", "FuxiCTR dcn_v2", "FuxiCTR deepfm")
               for fields in ("light fields", "all fields"))  # fmt: skip
#: Of simulated ads: without a row for each user and category, where the light net keeps what a user likes, and with the
#: settings that suit it then.
_PLAIN = {"user_category": None}
_PLAIN_SETTINGS = {"model": {"light": {"fm": False}}, "train": {"embedding_lr": 0.05}}
_ALONE = {"model": {"booster": {"kind": "none"}}}


@dataclass(frozen=True)
class Variant:
    """One way to train; its settings are laid over the app's."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seen: Mapping[str, bool | None] = field(default_factory=dict)  #: as `rows.app_with` takes it
    added: tuple[Feature, ...] = ()  #: features that the app does not ship with
    against: str = LIGHT
    teacher: bool = False  #: whether its booster stands in the table too, as "NAME: booster"


def _rocket(**settings: Any) -> Mapping[str, Any]:
    return {"rocket": settings}


def _shared(**settings: Any) -> Mapping[str, Any]:
    return {"model": {"sharing": "shared"}, "rocket": settings}


def variants_of(app: App) -> list[Variant]:
    """All of the study; the first two are what every app is asked: the light net alone, and the app as it ships."""
    privileged = [feature for feature in app.features if feature.only == "booster"]
    tabular = [feature.name for feature in privileged if feature.output != "ids"]
    of_stream = [feature.name for feature in privileged if feature.kind in {"count", "rate", "recent"}]
    sequences = [feature.name for feature in privileged if feature.output == "ids"]
    rich = dict.fromkeys(tabular, True)
    nothing_more: dict[str, bool | None] = dict.fromkeys((feature.name for feature in privileged), None)
    profile_only: dict[str, bool | None] = dict.fromkeys([*of_stream, *sequences], None)
    weight = app.config.rocket.hint_weight
    other = "shared" if app.config.model.sharing == "separate" else "separate"
    tables = {"model": {"sharing": other}}
    return [
        Variant(LIGHT, _ALONE),
        Variant(ROCKET, teacher=True),
        *(Variant(f"lambda {w:g}", _rocket(hint_weight=w)) for w in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0) if w != weight),
        *(Variant(f"{other} tables, lambda {w:g}", {**tables, **_rocket(hint_weight=w)}, teacher=True)
          for w in (0.3, 1.0, 3.0)),
        Variant("no gate", _rocket(gate=False)),
        Variant("gate at any lead", _rocket(gate_lead=0.0)),
        Variant("equal features, gate at any lead", _rocket(gate_lead=0.0), nothing_more, teacher=True),
        Variant("ramp over 30,000 rows", _rocket(gate=False, schedule="ramp", ramp_rows=30_000)),
        Variant("no gradient block, lambda 0.3", _rocket(gradient_block=False, hint_weight=0.3), teacher=True),
        Variant("no gradient block", _rocket(gradient_block=False), teacher=True),
        Variant("shared, light detached, lambda 0", _shared(light_updates_shared=False, hint_weight=0.0)),
        Variant("shared, light detached", _shared(light_updates_shared=False)),
        Variant("hint bernoulli_kl, lambda 1", _rocket(hint="bernoulli_kl", hint_weight=1.0)),
        Variant("hint bernoulli_kl, lambda 3", _rocket(hint="bernoulli_kl", hint_weight=3.0)),
        Variant("small booster 64-32", {"model": {"booster": {"hidden": (64, 32), "cross_layers": 0}}}, teacher=True),
        Variant("attention over the histories", {"model": {"booster": {"pooling": "attention"}}}, teacher=True),
        *(_fading(privileged, days) for days in (1, 4)),
        Variant("booster sees profile only", seen=profile_only, teacher=True),
        Variant("equal features", seen=nothing_more, teacher=True),
        Variant("rich light alone", _ALONE, seen=rich),
        Variant("rich light, rocket", seen=rich, against="rich light alone"),
        Variant("rich light, gate at any lead", _rocket(gate_lead=0.0), seen=rich, against="rich light alone"),
        *(_without_pairs() if app.name == "adsim" else ()),
    ]  # fmt: skip


def _fading(privileged: Iterable[Feature], days: int) -> Variant:
    """The app's counters with a half-life, in place of those that count for ever."""
    counters = [feature for feature in privileged if feature.kind in {"count", "rate"}]
    faded = {
        f.name: f.model_copy(update={"name": f"{f.name}_{days}d", "half_life_s": 86_400.0 * days}) for f in counters
    }
    said = f"counters fade by half in {days} day{'s' if days > 1 else ''}"
    return Variant(said, seen=dict.fromkeys(faded), added=tuple(faded.values()), teacher=True)


def all_features(app: App) -> App:
    """The app with what any of its variants adds, as the rows of all of them are made."""
    added = {feature.name: feature for variant in variants_of(app) for feature in variant.added}
    return replace(app, config=app.config.model_copy(update={"features": (*app.features, *added.values())}))


def _without_pairs() -> tuple[Variant, ...]:
    alone = f"{LIGHT}, without rows for pairs"
    return (
        Variant(alone, laid_over(_PLAIN_SETTINGS, _ALONE), _PLAIN),
        Variant(PLAIN, _PLAIN_SETTINGS, _PLAIN, against=alone, teacher=True),
    )


def chosen(names: Iterable[str], variants: list[Variant], others: Iterable[str]) -> set[str]:
    """The rows of the table that are asked for, and those that they are compared with.

    Args:
        names: of variants or others.
        variants: that there are.
        others: names of what is no variant.

    Raises:
        RocketError: one that is not there.

    >>> few = [Variant(LIGHT), Variant("rich light alone"), Variant("rich light, rocket", against="rich light alone")]
    >>> sorted(chosen(["rich light, rocket", "truth"], few, SIMULATED))
    ['light alone', 'rich light alone', 'rich light, rocket', 'truth']
    """
    yardsticks = {variant.name: variant.against for variant in variants}
    known = [*yardsticks, *others]
    for name in names:
        if name not in known:
            raise RocketError(f"--variants: the study has no '{name}' on these rows; {did_you_mean(name, known)}")
    return {LIGHT, *names, *(yardsticks[name] for name in names if name in yardsticks)}
