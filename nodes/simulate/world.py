"""The simulated world: users, ads, campaigns, sites, the hours of the day, and what each likes of the other."""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import polars as pl

from nodes.simulate.effects import MAIN, PAIRS, TASTE, Drift, Floats, Ints, Spread, centred, intercept_for, scaled

USERS, ADS, CAMPAIGNS = 3000, 400, 100
SEGMENTS, CATEGORIES, SITES, SITE_GROUPS = 8, 12, 40, 8
AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
DEVICES = ("mobile", "desktop", "tablet", "tv")
FORMATS = ("banner", "native", "video")
POSITIONS = 8
HISTORY = 20  #: ads of a user's history that an impression carries
START_MS = 1_767_571_200_000  #: 2026-01-05T00:00Z, a Monday
HOUR_MS = 3_600_000
CTR = 0.06
_FAVOURITES = 2
_DAY_PARTS = np.repeat(np.arange(4), 6)
_EVERGREEN = 0.7  # campaigns that run all the time
_SAMPLE = 100_000
#: attribute -> its value in each sampled impression, and how many values it has
_Seen = dict[str, tuple[Ints, int]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Impressions as indices into the world's tables; all arrays of one length."""

    user: Ints
    ad: Ints
    device: Ints
    site: Ints
    position: Ints  #: from 0
    time_ms: Ints


class World:
    """Everything that stays as it is during a run, drawn from one seed."""

    def __init__(self, rng: np.random.Generator, days: float, drift: Drift = Drift()) -> None:  # noqa: B008 (frozen)
        self.days, self.drift = days, drift
        self.hours = max(1, int(np.ceil(days * 24)))
        self._people(rng)
        self._adverts(rng)
        self._clock(rng)
        self._effects(rng)

    def _people(self, rng: np.random.Generator) -> None:
        popularity = np.arange(1, USERS + 1) ** -0.5
        self.user_cum = np.cumsum(rng.permutation(popularity / popularity.sum()))
        shares = np.diff(self.user_cum, prepend=0.0)
        self.segment = rng.choice(SEGMENTS, USERS, p=_zipf(SEGMENTS, 0.5))
        self.age = rng.choice(len(AGES) + 1, USERS, p=[0.18, 0.25, 0.22, 0.18, 0.15, 0.02])  # the last: not known
        self.usual_device = rng.choice(len(DEVICES), USERS, p=[0.5, 0.3, 0.1, 0.1])
        self.activity = np.round(shares * USERS * 15 * rng.lognormal(0, 0.3, USERS), 1)
        self.site_cum = np.cumsum(_zipf(SITES, 0.7))
        self.site_group = rng.permutation(np.arange(SITES) % SITE_GROUPS)
        self.position_cum = np.cumsum(_zipf(POSITIONS, 0.6))

    def _adverts(self, rng: np.random.Generator) -> None:
        self.campaign = rng.permutation(np.arange(ADS) % CAMPAIGNS)
        self.category = rng.permutation(np.arange(CAMPAIGNS) % CATEGORIES)[self.campaign]
        self.format = rng.choice(len(FORMATS), ADS, p=[0.4, 0.35, 0.25])
        self.bid = np.round(rng.lognormal(2.5, 0.4, ADS).clip(0.5, 99), 2)
        self.popularity = rng.permutation(_zipf(ADS, 0.6))
        starts = rng.uniform(-0.3, 0.85, CAMPAIGNS) * self.hours
        ends = starts + rng.uniform(0.2, 0.8, CAMPAIGNS) * self.hours
        evergreen = rng.permutation(CAMPAIGNS) < _EVERGREEN * CAMPAIGNS
        self.starts = np.where(evergreen, 0, np.floor(starts))[self.campaign]
        self.ends = np.where(evergreen, self.hours, np.ceil(ends))[self.campaign]

    def _clock(self, rng: np.random.Generator) -> None:
        hour = np.arange(24)
        self.busy = 1.0 + 0.6 * np.sin((hour - 9) * np.pi / 12) + rng.uniform(-0.05, 0.05, 24)
        each = self.busy[np.arange(self.hours) % 24]
        each[-1] *= self.days * 24 - (self.hours - 1)
        self._shown = np.concatenate([[0.0], np.cumsum(each) / each.sum()])
        self._until = np.minimum(np.arange(self.hours + 1), self.days * 24)

    @cached_property
    def ad_cum(self) -> Floats:
        """Hour by hour, one after the other: hour + the cumulative popularity of the ads that run in it."""
        hour = np.arange(self.hours)[:, None]
        running = (self.starts <= hour) & (hour < self.ends)
        cumulative = np.cumsum(running * self.popularity, axis=1)
        cumulative = cumulative / cumulative[:, -1:]
        return (hour + cumulative).ravel()

    def times(self, quantile: Floats) -> Ints:
        """Event time of the impression at `quantile` (0 to 1) of all, epoch milliseconds."""
        return START_MS + (np.interp(quantile, self._shown, self._until) * HOUR_MS).astype(np.int64)

    def sample(self, rng: np.random.Generator, quantile: Floats, sizes: Ints) -> Rows:
        """Page views at those quantiles of the traffic, each of `sizes` ads shown at one position one after another."""
        views = len(quantile)
        user = np.searchsorted(self.user_cum, rng.random(views) * self.user_cum[-1])
        device = np.where(rng.random(views) < 0.75, self.usual_device[user], rng.integers(0, len(DEVICES), views))
        site = np.searchsorted(self.site_cum, rng.random(views) * self.site_cum[-1])
        position = np.searchsorted(self.position_cum, rng.random(views) * self.position_cum[-1])
        view = np.repeat(np.arange(views), sizes)
        turn = np.arange(len(view)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        time_ms = self.times(quantile)[view] + turn * 40
        # evenly spaced draws: each by popularity, and never the same ad twice in one view
        draw = (rng.random(views)[view] + turn / sizes[view]) % 1.0
        hour = np.minimum((time_ms - START_MS) // HOUR_MS, self.hours - 1)
        ad = np.searchsorted(self.ad_cum, hour + draw, side="right") - hour * ADS
        return Rows(user[view], np.minimum(ad, ADS - 1), device[view], site[view], position[view], time_ms)

    def _effects(self, rng: np.random.Generator) -> None:
        sizes = 1 + rng.integers(0, 4, _SAMPLE // 2)
        rows = self.sample(rng, np.sort(rng.random(len(sizes))), sizes)
        hour = (rows.time_ms - START_MS) // HOUR_MS % 24
        seen = {
            "user": (rows.user, USERS), "segment": (self.segment[rows.user], SEGMENTS),
            "age": (self.age[rows.user], len(AGES) + 1), "ad": (rows.ad, ADS),
            "campaign": (self.campaign[rows.ad], CAMPAIGNS), "category": (self.category[rows.ad], CATEGORIES),
            "format": (self.format[rows.ad], len(FORMATS)), "device": (rows.device, len(DEVICES)),
            "site": (rows.site, SITES), "site_group": (self.site_group[rows.site], SITE_GROUPS),
            "hour": (hour, 24), "part_of_day": (_DAY_PARTS[hour], 4), "position": (rows.position, POSITIONS),
        }  # fmt: skip
        traits = {name: _trait(rng, name, size) for name, (_, size) in seen.items()}
        main = {spread.over[0]: _main(spread, traits, seen) for spread in MAIN}
        pair = {spread.over: _pair(spread, seen, np.outer(*(traits[name] for name in spread.over))) for spread in PAIRS}
        likes = np.argsort(rng.random((USERS, CATEGORIES)), axis=1) < _FAVOURITES
        taste = _pair(TASTE, seen, likes.astype(np.float64))
        people = main["user"] + main["segment"][self.segment] + main["age"][self.age]
        adverts = sum(main[name][getattr(self, name)] for name in ("campaign", "category", "format")) + main["ad"]
        by_category = taste + pair["segment", "category"][self.segment]
        by_format = pair["age", "format"][self.age]
        self.user_ad = (people[:, None] + adverts + by_category[:, self.category] + by_format[:, self.format]).astype(
            np.float32
        )
        self.site_ad = (
            main["site"][:, None] + pair["site_group", "category"][self.site_group][:, self.category]
        ).astype(np.float32)
        self.device_format = main["device"][:, None] + pair["device", "format"]
        self.hour_segment = main["hour"][:, None] + pair["part_of_day", "segment"][_DAY_PARTS]
        self.by_position = main["position"]
        drifting = CATEGORIES if self.drift.over == "category" else CAMPAIGNS
        of_ad = getattr(self, self.drift.over)
        self.phases = [(rng.permutation(drifting) / drifting)[of_ad] for _ in range(self.drift.swings)]
        self.intercept = 0.0
        self.intercept = intercept_for(self.logit(rows), CTR)

    def logit(self, rows: Rows) -> Floats:
        """The true log-odds of a click."""
        hours = (rows.time_ms - START_MS) / HOUR_MS
        swing = sum(
            np.sin(2 * np.pi * (hours / period_h + phase[rows.ad]))
            for period_h, phase in zip(self.drift.periods_h, self.phases, strict=True)
        )
        return (
            self.intercept
            + self.user_ad[rows.user, rows.ad]
            + self.site_ad[rows.site, rows.ad]
            + self.device_format[rows.device, self.format[rows.ad]]
            + self.hour_segment[hours.astype(np.int64) % 24, self.segment[rows.user]]
            + self.by_position[rows.position]
            + self.drift.logits * np.sqrt(2 / self.drift.swings) * swing
        )

    def first_clicks(self, rng: np.random.Generator, most: int) -> tuple[Ints, Ints]:
        """What each user clicked before the log begins: users and ads, `most` or fewer ads a user, oldest first."""
        race = self.user_ad + np.log(self.popularity) + rng.gumbel(size=(USERS, ADS))
        ads = np.argsort(-race, axis=1)[:, :most]
        ads = rng.permuted(ads, axis=1)
        kept = np.arange(most) < rng.integers(0, most + 1, USERS)[:, None]
        return np.nonzero(kept)[0], ads[kept]

    def people_frame(self) -> pl.DataFrame:
        """One row a user: the columns that an impression carries, but for the history."""
        return pl.DataFrame(
            {
                "user_id": _names("u", USERS, 5),
                "segment": _names("s", SEGMENTS, 1).gather(self.segment),
                "age_band": pl.Series([*AGES, None]).gather(self.age),
                "user_activity": self.activity,
            }
        )

    def adverts_frame(self) -> pl.DataFrame:
        """One row an ad: the columns that an impression carries."""
        return pl.DataFrame(
            {
                "item_id": _names("ad", ADS, 4),
                "campaign_id": _names("c", CAMPAIGNS, 3).gather(self.campaign),
                "category": _names("cat", CATEGORIES, 2).gather(self.category),
                "format": pl.Series(FORMATS).gather(self.format),
                "bid": self.bid,
            }
        )

    def places_frame(self) -> pl.DataFrame:
        """One row a (device, site, position), in that order: the columns that an impression carries."""
        device = pl.DataFrame({"device": DEVICES})
        return device.join(pl.DataFrame({"site": _names("site", SITES, 2)}), how="cross").join(
            pl.DataFrame({"position": np.arange(1, POSITIONS + 1)}), how="cross"
        )


def _zipf(count: int, exponent: float) -> Floats:
    weight = np.arange(1, count + 1) ** -exponent
    share: Floats = weight / weight.sum()
    return share


def _names(prefix: str, count: int, width: int) -> pl.Series:
    return pl.Series([f"{prefix}{index:0{width}d}" for index in range(count)])


def _trait(rng: np.random.Generator, name: str, size: int) -> Floats:
    """A hidden trait for each value of an attribute: normal quantiles, so that every seed has its high and low ones."""
    if name == "position":
        return -np.log(np.arange(1.0, size + 1))
    quantiles = [NormalDist().inv_cdf((index + 0.5) / size) for index in range(size)]
    return rng.permutation(np.array(quantiles))


def _main(spread: Spread, traits: dict[str, Floats], seen: _Seen) -> Floats:
    (name,) = spread.over
    index, size = seen[name]
    return scaled(traits[name], np.bincount(index, minlength=size).astype(np.float64), spread.logits)


def _pair(spread: Spread, seen: _Seen, table: Floats) -> Floats:
    (first, rows), (second, columns) = (seen[name] for name in spread.over)
    weight = np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns).astype(np.float64)
    return scaled(centred(table, weight), weight, spread.logits)
