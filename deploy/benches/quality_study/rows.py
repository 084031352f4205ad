"""The rows that every model of the study learns and is judged on: ingested once, shared by all.

log or simulator ─▶ events ─▶ ingest ─▶ example rows ─┬─▶ trained on, in time order
                                                      └─▶ the last days: judged on
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.app import App, load_app
from contracts.errors import ContractError
from contracts.features import Feature
from flows import ingest
from model.metrics import Floats
from nodes.example_log import ExampleDirectory
from nodes.import_kuairand import import_kuairand
from nodes.simulate import simulate

_DAY_MS = 86_400_000
_CHINA_MS = 8 * 3_600_000  # the log's calendar
_TEST_DAYS = 2


@dataclass(frozen=True)
class Rows:
    """Example rows in log order, and where they are cut."""

    frame: pl.DataFrame  #: columns of `example_schema`, every feature of the app
    tuning: int  #: the first row of the last days before the test, on which settings are chosen
    cut: int  #: the first row of the test
    truth: Floats | None = None  #: true click probabilities of the test rows, where they are known

    @property
    def label(self) -> Floats:
        """Labels of the test rows, 0 or 1."""
        return self.frame["label"][self.cut :].to_numpy().astype(np.float64)

    @property
    def user(self) -> pl.Series:
        """Users of the test rows."""
        return self.frame["user_id"][self.cut :]


def kuairand_rows(app: App, data: Path, *, test_days: int = _TEST_DAYS, first_rows: int | None = None) -> Rows:
    """The KuaiRand log in `data`: the last two calendar days are the test, the two before them the tuning days.

    Args:
        app: the kuairand app, with every feature that any model of the study sees.
        data: the folder of the log.
        test_days: how many days are judged.
        first_rows: keep only so many rows of the log's beginning; None: all.
    """
    with tempfile.TemporaryDirectory() as name:
        events = Path(name) / "events"
        import_kuairand(data, events)
        frame = _ingested(app, events, Path(name) / "ingest")
    if first_rows is not None:
        frame = frame.head(first_rows)
    day = (frame["event_time_ms"].to_numpy() + _CHINA_MS) // _DAY_MS
    cut = int(np.searchsorted(day, day[-1] - test_days + 1))
    tuning = int(np.searchsorted(day, day[-1] - 2 * test_days + 1))
    if not 0 < tuning < cut:
        raise ContractError(f"{data}: the log spans too few days to train, to tune and to judge on; give a longer one")
    return Rows(frame, tuning, cut)


def adsim_rows(app: App, seed: int, impressions: int) -> Rows:
    """A simulated world of its own for each seed: its last fifth is the test, as in `rocket demo`."""
    with tempfile.TemporaryDirectory() as name:
        events = Path(name) / "events"
        simulate(events, impressions=impressions, seed=seed)
        frame = _ingested(app, events, Path(name) / "ingest")
        truth = pl.read_parquet(events / "truth.parquet", columns=["impression_id", "p_truth"]).unique("impression_id")
    time_ms = frame["event_time_ms"].to_numpy()
    cut, tuning = (int(np.searchsorted(time_ms, _at(time_ms, share))) for share in (0.8, 0.6))
    known = frame[cut:].join(truth, on="impression_id", how="left", maintain_order="left")["p_truth"]
    return Rows(frame, tuning, cut, known.to_numpy())


def _at(time_ms: npt.NDArray[np.int64], share: float) -> float:
    return float(time_ms[0] + share * (time_ms[-1] - time_ms[0]))


def _ingested(app: App, events: Path, out: Path) -> pl.DataFrame:
    ingest.run(app, [events / "impressions.ndjson"], [events / "clicks.ndjson"], out)
    return pl.concat([batch.frame for batch in ExampleDirectory(out / "examples").read(0, app.schema_id)]).rechunk()


def app_with(
    name: str,
    settings: Mapping[str, Any],
    seen: Mapping[str, bool | None] | None = None,
    added: tuple[Feature, ...] = (),
) -> App:
    """A shipped app under other settings, its nets seeing other features.

    Args:
        name: of the app.
        settings: laid over its app.toml, nested.
        seen: feature -> True: both nets see it; False: only the booster; None: neither. Others stay as they are.
        added: features behind its own.

    Returns:
        The app. Features of the stream may be given to the light net here, which an app of its own may not: a request
        does not carry them, so such a net can be judged but not served.
    """
    app, seen = load_app(name, settings), seen or {}
    features = tuple(
        feature.model_copy(update={"only": None if seen[feature.name] else "booster"})
        if feature.name in seen
        else feature
        for feature in app.features
        if seen.get(feature.name, True) is not None
    )
    return replace(app, config=app.config.model_copy(update={"features": features + added}))
