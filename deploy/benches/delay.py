"""What waiting for late clicks costs, and which label mode pays least: a simulated day under each `labels.mode`.

Clicks come up to an hour late (heavy-tailed), and what users like drifts within hours, so that an hour's wait is an
hour's staleness. Every ten minutes the impressions of the next ten are scored with the newest weights and compared with
the true click probability; then what became known meanwhile is learnt. `oracle` knows each final label at once. All
take the same number of steps: a mode that tells the log more rows has larger minibatches. `fnc_served_plain` are the
weights of `fnc` without its mend at serving; `dfm_without_clock` is `dfm` without the hour feature, which tells the
nets how far a row's impression has been told.

Expected logloss (nats) under the truth; regret: above the truth's own entropy; calibration: predicted over true clicks;
gap closed: 0 is `wait`, 1 the oracle.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.app import App, load_app
from contracts.events import ORIGIN
from contracts.features import STATEFUL
from contracts.segments import ORDER
from model.metrics import expected_logloss
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.featurize import Featurizer
from nodes.featurize_chunks import example_columns
from nodes.join import Joiner
from nodes.sample import sample
from nodes.simulate import simulate
from nodes.source import read_events

_MODES = ("wait", "fake_negative", "fnc", "es_dfm", "dfm")
_WAIT_S, _OBSERVE_S, _SLOT_MS = 3600.0, 300.0, 600_000
#: Click delays in seconds: share, median and sigma of each log-normal part; longer ones than the wait are drawn again.
_DELAYS = ((0.45, 20.0, 1.0), (0.55, 900.0, 1.0))
_DRIFT, _DRIFT_MS = 0.6, 6 * 3_600_000  # logits (amplitude) and period of each campaign's swing
_AVERAGED_STEPS = 16  # half-life of the averaged towers that are published

Floats = npt.NDArray[np.float64]


class _Day(NamedTuple):
    """What happened, whatever the mode."""

    impressions: pl.DataFrame  #: contract and ORIGIN columns
    clicks: pl.DataFrame
    truth: pl.DataFrame  #: impression_id, p_truth


class _Log(NamedTuple):
    """A mode's example log."""

    frame: pl.DataFrame  #: `example_schema` columns and `p_truth`, in log order
    known_ms: npt.NDArray[np.int64]  #: when each row could be learnt


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """120k impressions a day, medians over 3 such days (quick: 6k in half a day, nets too fresh to be ranked)."""
    impressions, days, seeds = (6_000, 0.5, (1,)) if quick else (120_000, 1.0, (1, 2, 3))
    steps = 48 if quick else 600
    began, told = time.process_time(), []
    for seed in seeds:
        day = _simulated(impressions, days, seed)
        told.append(_judged_day(day, steps, seed, warm_up_ms=(2 if quick else 4) * 3_600_000))
    modes = {
        name: {figure: float(np.median([one[name][figure] for one in told])) for figure in told[0][name]}
        for name in told[0]
    }
    return {
        "modes": modes,
        "impressions": impressions,
        "days": len(seeds),
        "wait_s": _WAIT_S,
        "observe_s": _OBSERVE_S,
        "cpu_seconds": time.process_time() - began,
    }


def _judged_day(day: _Day, steps: int, seed: int, *, warm_up_ms: int) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    logs = {mode: _log(_app(mode), day) for mode in _MODES}
    shown = logs["wait"].frame  # one row an impression at its own time
    logs["oracle"] = _Log(shown, shown["event_time_ms"].to_numpy())
    logs["dfm_without_clock"] = logs["dfm"]
    for name, log in logs.items():
        mode, clock = {"oracle": ("wait", True), "dfm_without_clock": ("dfm", False)}.get(name, (name, True))
        app = _app(mode, max(1, log.frame.height // steps), clock=clock)
        figures |= _figures(name, log, shown, _predicted(Trainer(app, seed=seed), log, shown), warm_up_ms)
    worst, best = figures["wait"]["regret"], figures["oracle"]["regret"]
    for told in figures.values():
        told["gap_closed"] = (worst - told["regret"]) / (worst - best)
    return figures


def _app(mode: str, batch_rows: int = 256, *, clock: bool = True) -> App:
    left_out = STATEFUL if clock else STATEFUL | {"time"}
    kept = [feature for feature in load_app("adsim").features if feature.kind not in left_out]
    features = [feature.model_dump(by_alias=True, exclude_none=True) for feature in kept]
    labels = {"mode": mode, "wait_s": _WAIT_S, "observe_s": _OBSERVE_S, "dedupe_s": 2 * _WAIT_S}
    train = {"batch_rows": batch_rows, "average_rows": _AVERAGED_STEPS * batch_rows, "device": "cpu"}
    return load_app("adsim", {"features": features, "labels": labels, "train": train})


def _simulated(impressions: int, days: float, seed: int) -> _Day:
    """The simulator's traffic with a drift and click delays of this bench's own."""
    app, rng = _app("wait"), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder, impressions=impressions, days=days, seed=seed)
        read = read_events(folder / "impressions.ndjson", app.impressions, app, "impressions")
        whole = pl.concat([chunk.frame for chunk in read]).filter(~pl.col("_late")).sort("event_time_ms", "_line")
        shown = whole.unique("impression_id", keep="first", maintain_order=True)
        truth = pl.read_parquet(folder / "truth.parquet", columns=["impression_id", "p_truth"])
    p = shown.join(truth, on="impression_id", how="left", maintain_order="left")["p_truth"].to_numpy()
    at_ms = shown["event_time_ms"].to_numpy()
    campaign = shown["campaign_id"].rank("dense").to_numpy().astype(np.int64)
    phase = rng.random(campaign.max() + 1)[campaign]
    p = 1 / (1 + (1 - p) / p * np.exp(-_DRIFT * np.sin(2 * np.pi * (at_ms / _DRIFT_MS + phase))))
    hit = np.flatnonzero(rng.random(p.size) < p)
    clicks = pl.DataFrame(
        {
            "click_id": [f"c{n}" for n in hit],
            "impression_id": shown["impression_id"].gather(hit),
            "event_time_ms": at_ms[hit] + _delays_ms(rng, hit.size),
            "_origin": "clicks",
            "_line": hit,
            "_hash": hit,
            "_late": False,
        }
    )
    schema = app.clicks.schema_ | ORIGIN
    nothing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in clicks.columns]
    typed = clicks.with_columns(nothing).select(pl.col(name).cast(kind) for name, kind in schema.items())
    return _Day(shown, typed, shown.select("impression_id", p_truth=pl.Series(p)))


def _delays_ms(rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    share, median, sigma = (np.array(column) for column in zip(*_DELAYS, strict=True))
    delay_s = np.full(count, np.inf)
    while (late := np.flatnonzero(delay_s > _WAIT_S)).size:
        part = rng.choice(len(_DELAYS), late.size, p=share)
        delay_s[late] = median[part] * np.exp(sigma[part] * rng.standard_normal(late.size))
    return 1 + (delay_s * 1000 * (1 - 1e-6)).astype(np.int64)


def _log(app: App, day: _Day) -> _Log:
    """The rows that ingest would write, by its own cores."""
    joiner = Joiner(app)
    joiner.add(day.impressions, day.clicks)
    kept = sample(joiner.settle(None).examples, app).kept
    rows = kept.select(example_columns(app)).hstack(Featurizer(app.features)(kept)).sort(ORDER)
    rows = rows.join(day.truth, on="impression_id", how="left", maintain_order="left")
    return _Log(rows, rows["event_time_ms"].to_numpy() + joiner.settle_after_ms)


def _predicted(trainer: Trainer, log: _Log, shown: pl.DataFrame) -> dict[str, Floats]:
    """Logits of each impression by the weights published last before it, and the chances made of them."""
    app = trainer.app
    rows, asked = to_batch(log.frame, app), to_batch(shown, app)
    times, batch_rows = shown["event_time_ms"].to_numpy(), app.config.train.batch_rows
    order = np.argsort(log.known_ms, kind="stable")
    assert (order == np.arange(order.size)).all(), "a log's rows become known in its order"  # noqa: S101
    light, booster, learnt = [], [], 0
    for slot_ms in range(int(times[0]) // _SLOT_MS * _SLOT_MS, int(times[-1]) + 1, _SLOT_MS):
        known = int(np.searchsorted(log.known_ms, slot_ms))
        while learnt + batch_rows <= known:
            trainer.learn(rows.slice(learnt, learnt + batch_rows))
            learnt += batch_rows
        first, after = (int(place) for place in np.searchsorted(times, [slot_ms, slot_ms + _SLOT_MS]))
        if after > first:
            made = trainer.predict(asked.slice(first, after), averaged=True)
            light.append(np.stack([made.light, made.light_logit]))
            booster.append(made.booster if made.booster is not None else made.light)
    chances, logits = np.concatenate(light, axis=1)
    return {"light": chances, "logit": logits, "booster": np.concatenate(booster), "steps": np.array([trainer.step])}


def _figures(
    name: str, log: _Log, shown: pl.DataFrame, made: dict[str, Floats], warm_up_ms: int
) -> dict[str, dict[str, float]]:
    times, truth = shown["event_time_ms"].to_numpy(), shown["p_truth"].to_numpy()
    judged = times >= times[0] + warm_up_ms
    truth = truth[judged]

    def told(p: Floats) -> dict[str, float]:
        logloss = expected_logloss(truth, p[judged])
        regret = logloss - expected_logloss(truth, truth)
        return {
            "expected_logloss": logloss,
            "regret": regret,
            "calibration": float(p[judged].sum() / truth.sum()),
        }

    of_booster = told(made["booster"])
    figures = told(made["light"]) | {
        "booster_regret": of_booster["regret"],
        "booster_calibration": of_booster["calibration"],
        "rows": float(log.frame.height),
        "steps": float(made["steps"][0]),
    }
    found = {name: figures}
    if name == "fnc":  # the same weights, served as they are
        plain = told(1 / (1 + np.exp(-made["logit"])))
        found["fnc_served_plain"] = figures | plain
    return found
