"""What stale weights cost: train on the first days, then stream the rest, predict before learning, sync now and then.

The protocol of Monolith (Liu et al. 2022, algorithm 1, arXiv 2209.07663): train on a batch of days, then take the
stream in shards: the serving weights predict each shard before the training weights learn it, and take the training
weights over once a sync interval. `never` serves what the batch made. Labels are known at once, as in the paper: what
waiting for them costs is `rocket bench delay`. One training run serves every interval, so intervals differ in staleness
alone.

On `adsim`, where the appeal of each category drifts by the hour and the true click probability is known; and with
`--data DIR` on the KuaiRand log, its last two days streamed. AUC, and logloss (adsim: expected under the truth) of the
light net as it is published. Gains are over `never`, means over seeds with their standard errors; of the real log,
whose rows all seeds share, also the standard error of a bootstrap over users.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.app import App, load_app
from contracts.features import STATEFUL
from contracts.segments import ORDER
from deploy.bench_options import BenchOptions
from deploy.bench_results import write_picture
from deploy.benches.freshness_plot import drawn
from model.metrics import auc, expected_logloss
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.featurize import Featurizer
from nodes.featurize_chunks import example_columns
from nodes.import_kuairand import import_kuairand
from nodes.join import Joiner
from nodes.sample import sample
from nodes.simulate import Drift, Faults, simulate
from nodes.source import read_events

_MINUTE_MS = 60_000
_DRIFT = Drift(logits=0.5, period_h=7.0, over="category", swings=4)  # up to 30 h
_BOOTSTRAPS = 200
_LOGS: tuple[str, ...] = ("adsim", "kuairand")
_RATES = Faults(duplicates=0, late=0, orphans=0, malformed=0)

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]


class _Log(NamedTuple):
    """Examples in log order."""

    frame: pl.DataFrame  #: `example_schema` columns
    truth: Floats | None  #: true click probability, where it is known
    streamed_ms: int  #: event time of the first streamed example


def run(quick: bool, options: BenchOptions) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """AUC against sync interval on adsim, and on KuaiRand with `--data`; a plot with `--out`."""
    began = time.process_time()
    sized = (24_000, 1.0, 0.6, (10, 60, 240)) if quick else (360_000, 4.0, 1.0, (5, 10, 30, 60, 120, 300, 720))
    impressions, days, streamed, minutes = sized
    seeds = range(1, (options.seeds or (1 if quick else 5)) + 1)
    made = []
    for seed in seeds:
        app = _app("adsim", options.device)
        with tempfile.TemporaryDirectory() as folder:
            simulate(Path(folder), impressions=impressions, days=days, seed=seed, rates=_RATES, drift=_DRIFT)
            log = _log(app, Path(folder), streamed)
        made.append((log, _served(app, log, minutes, seed)))
    results: dict[str, Any] = {"adsim": _table(made)}
    if options.data is not None:
        results["kuairand"] = _kuairand(options.data, quick, options)
    for name in _LOGS:
        if name in results:
            results[f"{name}_cost"] = _cost(results[name])
    if options.out is not None:
        tables: dict[str, list[Row]] = {name: results[name] for name in _LOGS if name in results}
        write_picture(options.out / "freshness.png", drawn(tables), options.command("freshness", quick=quick))
    return results | {"seeds": len(seeds), "impressions": impressions, "cpu_seconds": time.process_time() - began}


def _kuairand(data: Path, quick: bool, options: BenchOptions) -> list[Row]:  # noqa: FBT001
    app = _app("kuairand", options.device)
    with tempfile.TemporaryDirectory() as folder:
        import_kuairand(data, Path(folder), seed=1)
        log = _log(app, Path(folder), streamed_days=2.0)
    if quick:  # two days of batch
        late = pl.col("event_time_ms") >= log.streamed_ms - 2 * 1440 * _MINUTE_MS
        log = log._replace(frame=log.frame.filter(late))
    minutes = (10, 60, 720) if quick else (10, 30, 60, 300, 720, 1440)
    seeds = range(1, (options.seeds or (1 if quick else 3)) + 1)
    return _table([(log, _served(app, log, minutes, seed)) for seed in seeds], bootstrap=True)


def _app(name: str, device: str) -> App:
    """The app without features that are state of the stream, its averages as short as what drifts."""
    kept = [feature for feature in load_app(name).features if feature.kind not in STATEFUL]
    features = [feature.model_dump(by_alias=True, exclude_none=True) for feature in kept]
    train = {"device": device, "batch_rows": 128, "average_rows": 1024, "linear": False}
    return load_app(name, {"features": features, "train": train})


def _log(app: App, folder: Path, streamed_days: float) -> _Log:
    """The rows that ingest would write, by its own cores; the last days are streamed."""
    joiner = Joiner(app)
    streams = {"impressions": app.impressions, "clicks": app.clicks}
    read = {name: list(read_events(folder / f"{name}.ndjson", kept, app, name)) for name, kept in streams.items()}
    joiner.add(*(pl.concat([part.frame for part in parts]) for parts in read.values()))
    kept = sample(joiner.settle(None).examples, app).kept
    rows = kept.select(example_columns(app)).hstack(Featurizer(app.features)(kept)).sort(ORDER)
    truth = None
    if (folder / "truth.parquet").is_file():
        known = pl.read_parquet(folder / "truth.parquet", columns=["impression_id", "p_truth"])
        joined = rows.select("impression_id").join(known, on="impression_id", how="left", maintain_order="left")
        truth = joined["p_truth"].to_numpy()
    return _Log(rows, truth, rows["event_time_ms"][-1] - round(streamed_days * 1440) * _MINUTE_MS)


def _served(app: App, log: _Log, minutes: Sequence[int], seed: int) -> dict[int | None, Floats]:
    """Sync interval in minutes (None: never) -> the probability that each streamed example was served with."""
    trainer, rows = Trainer(app, seed=seed), to_batch(log.frame, app)
    times, batch_rows = log.frame["event_time_ms"].to_numpy(), app.config.train.batch_rows
    learnt, streamed = 0, int(np.searchsorted(times, log.streamed_ms))
    step_ms = int(np.gcd.reduce(np.array(minutes))) * _MINUTE_MS
    served: dict[int | None, list[Floats]] = {None: [], **{each: [] for each in minutes}}
    for now_ms in range(log.streamed_ms, int(times[-1]) + 1, step_ms):
        known = int(np.searchsorted(times, now_ms))
        while learnt + batch_rows <= known:
            trainer.learn(rows.slice(learnt, learnt + batch_rows))
            learnt += batch_rows
        for each, parts in served.items():
            if each is None:
                due, after = now_ms == log.streamed_ms, rows.rows
            else:
                due = (now_ms - log.streamed_ms) % (each * _MINUTE_MS) == 0
                after = int(np.searchsorted(times, now_ms + each * _MINUTE_MS))
            if due and after > known:
                parts.append(trainer.predict(rows.slice(known, after), averaged=True).light)
    whole = {each: np.concatenate(parts).astype(np.float64) for each, parts in served.items()}
    assert {len(p) for p in whole.values()} == {rows.rows - streamed}, "each row is served once"  # noqa: S101
    return whole


def _table(made: Sequence[tuple[_Log, dict[int | None, Floats]]], *, bootstrap: bool = False) -> list[Row]:
    """One row an interval: means over the runs, gains over `never` and what is lost against the shortest interval.

    Errors are those of paired differences.
    """
    figures = [_figures(log, served) for log, served in made]
    by_users = _user_errors(*made[0]) if bootstrap else {}
    shortest = min(each for each in made[0][1] if each is not None)
    table = []
    for each in made[0][1]:
        row: Row = {"sync_min": each, "sync": "never" if each is None else _named(each)}
        for name in figures[0][None]:
            values = np.array([run[each][name] for run in figures])
            gains = values - np.array([run[None][name] for run in figures])
            row |= {name: float(values.mean()), f"{name}_gain": float(gains.mean()), f"{name}_gain_se": _error(gains)}
        lost = np.array([run[shortest]["auc"] - run[each]["auc"] for run in figures])
        row |= {"auc_lost": float(lost.mean()), "auc_lost_se": _error(lost)}
        if bootstrap:
            row |= dict(zip(("auc_gain_se_users", "auc_lost_se_users"), by_users[each], strict=True))
        table.append(row)
    return table


def _figures(log: _Log, served: dict[int | None, Floats]) -> dict[int | None, dict[str, float]]:
    """Interval -> AUC, and logloss: under the truth where it is known, else of the labels."""
    streamed = log.frame.height - len(served[None])
    label = log.frame["label"].to_numpy()[streamed:]
    target = label if log.truth is None else log.truth[streamed:]
    return {
        each: {"auc": auc(label, p) or float("nan"), "logloss": expected_logloss(target, p)}
        for each, p in served.items()
    }


def _user_errors(log: _Log, served: dict[int | None, Floats]) -> dict[int | None, tuple[float, float]]:
    """Standard errors of each AUC's difference to `never` and to the shortest interval, by a bootstrap over users."""
    rows = log.frame.slice(log.frame.height - len(served[None]))
    user = rows["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    label, draw, users = rows["label"].to_numpy(), np.random.default_rng(0), int(user.max()) + 1
    found = np.empty((_BOOTSTRAPS, len(served)))
    for number in range(_BOOTSTRAPS):
        weight = np.bincount(draw.integers(0, users, users), minlength=users)[user]
        found[number] = [auc(label, p, weight) or float("nan") for p in served.values()]
    places = list(served)
    shortest = min(each for each in places if each is not None)
    against = [found - found[:, [places.index(each)]] for each in (None, shortest)]
    return {
        each: (float(against[0][:, n].std(ddof=1)), float(against[1][:, n].std(ddof=1)))
        for n, each in enumerate(places)
    }


def _cost(table: Sequence[Row]) -> Row:
    """What an hour between two syncs costs, and what never syncing does, against the shortest interval."""
    rows = {row["sync_min"]: row for row in table}
    shortest = min(each for each in rows if each is not None)
    told: Row = {"shortest_min": shortest}
    for name, row in (("never", rows[None]), ("at_1_h", rows[60])):
        errors = [row.get("auc_lost_se_users"), row["auc_lost_se"]]
        told |= {f"auc_lost_{name}": row["auc_lost"]}
        told |= {f"auc_lost_{name}_se": next((error for error in errors if error is not None), None)}
    stale_min = (60 - shortest) / 2  # on average: half of what lies between two syncs
    told["auc_lost_a_minute_of_staleness"] = rows[60]["auc_lost"] / stale_min
    told["logloss_lost_a_minute_of_staleness"] = (rows[60]["logloss"] - rows[shortest]["logloss"]) / stale_min
    return told


def _error(values: Floats) -> float | None:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _named(minutes: int) -> str:
    return f"{minutes} min" if minutes < 60 else f"{minutes / 60:g} h"
