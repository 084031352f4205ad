"""`rocket bench freshness`: every interval is served as the protocol says, and the figures are those of the rows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

from contracts.app import App
from deploy.bench_options import BenchOptions
from deploy.benches import freshness
from deploy.commands import bench
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.simulate import Drift, simulate


@pytest.fixture(scope="module")
def app() -> App:
    return freshness._app("adsim", "cpu")


@pytest.fixture(scope="module")
def log(app: App, tmp_path_factory: pytest.TempPathFactory) -> freshness._Log:
    folder = tmp_path_factory.mktemp("events")
    simulate(folder, impressions=4000, days=0.5, seed=1, rates=freshness._RATES, drift=Drift(1.0, 3.0))
    return freshness._log(app, folder, 0.2)


def plainly(app: App, log: freshness._Log, minutes: int | None, seed: int) -> np.ndarray:
    """Algorithm 1 for one interval, with a trainer of its own: predict a shard, then learn it."""
    trainer, rows, learnt = Trainer(app, seed=seed), to_batch(log.frame, app), 0
    times = log.frame["event_time_ms"].to_numpy()
    served = []
    start, span = log.streamed_ms, 10**12 if minutes is None else minutes * 60_000
    while start <= times[-1]:
        known = int((times < start).sum())
        while learnt + 128 <= known:
            trainer.learn(rows.slice(learnt, learnt + 128))
            learnt += 128
        shard = np.flatnonzero((times >= start) & (times < start + span))
        if shard.size:
            served.append(trainer.predict(rows.slice(int(shard[0]), int(shard[-1]) + 1), averaged=True).light)
        start += span
    return np.concatenate(served)


def test_every_interval_is_served_as_by_a_trainer_of_its_own(app: App, log: freshness._Log) -> None:
    served = freshness._served(app, log, (10, 30, 50), seed=3)
    assert list(served) == [None, 10, 30, 50]
    for minutes, p in served.items():
        assert (p == plainly(app, log, minutes, seed=3)).all(), minutes
    assert len({p.tobytes() for p in served.values()}) == 4


def test_figures_and_gains_are_those_of_the_served_rows(app: App, log: freshness._Log) -> None:
    runs = [freshness._served(app, log, (20, 60), seed=seed) for seed in (1, 2, 3)]
    table = freshness._table([(log, served) for served in runs], bootstrap=True)
    label = log.frame["label"].to_numpy()[-len(runs[0][None]) :]
    truth = log.truth[-len(label) :]
    gains = [roc_auc_score(label, served[60]) - roc_auc_score(label, served[None]) for served in runs]
    both, weight = np.repeat([1, 0], len(truth)), np.r_[truth, 1 - truth]
    losses = [log_loss(both, np.r_[served[60], served[60]], sample_weight=weight) for served in runs]
    never, short, hour = table
    lost = [roc_auc_score(label, served[20]) - roc_auc_score(label, served[60]) for served in runs]
    assert hour["auc_lost"] == pytest.approx(np.mean(lost), abs=1e-12)
    assert hour["auc_lost_se"] == pytest.approx(np.std(lost, ddof=1) / np.sqrt(3), abs=1e-12)
    assert (short["auc_lost"], short["auc_lost_se_users"]) == (0, 0)
    cost = freshness._cost(table)
    assert cost["auc_lost_a_minute_of_staleness"] == pytest.approx(np.mean(lost) / 20, abs=1e-12)
    assert cost["auc_lost_at_1_h_se"] == hour["auc_lost_se_users"] > 0
    assert (never["sync"], never["auc_gain"], never["logloss_gain_se"]) == ("never", 0.0, 0.0)
    assert hour["auc_gain"] == pytest.approx(np.mean(gains), abs=1e-12)
    assert hour["auc_gain_se"] == pytest.approx(np.std(gains, ddof=1) / np.sqrt(3), abs=1e-12)
    assert hour["logloss"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert never["auc_gain_se_users"] == 0 < hour["auc_gain_se_users"] < 0.1


def test_the_error_over_users_is_that_of_drawing_users(app: App, log: freshness._Log, monkeypatch) -> None:
    """An oracle that repeats the rows of each drawn user, in place of weights."""
    monkeypatch.setattr(freshness, "_BOOTSTRAPS", 8)
    served = freshness._served(app, log, (60,), seed=1)
    rows = log.frame.tail(len(served[None]))
    users, label = rows["user_id"].to_numpy(), rows["label"].to_numpy()
    names, draw, gains = np.unique(users), np.random.default_rng(0), []
    for _ in range(8):
        drawn = names[draw.integers(0, len(names), len(names))]
        taken = np.concatenate([np.flatnonzero(users == name) for name in drawn])
        gains.append(roc_auc_score(label[taken], served[60][taken]) - roc_auc_score(label[taken], served[None][taken]))
    assert freshness._user_errors(log, served)[60] == pytest.approx((np.std(gains, ddof=1), 0.0), abs=1e-12)


def test_the_command_writes_tables_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = freshness.simulate

    def fewer(folder: Path, *, impressions: int, **settings) -> None:
        small(folder, impressions=impressions // 8, **settings)

    monkeypatch.setattr(freshness, "simulate", fewer)
    done = CliRunner().invoke(bench.app, ["freshness", "--quick", "--seeds", "2", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "freshness-adsim.csv", "freshness.csv", "freshness.json", "freshness.md", "freshness.png",
    ]  # fmt: skip
    with Image.open(tmp_path / "freshness.png") as picture:
        assert picture.info["Description"] == BenchOptions(out=tmp_path, seeds=2).command("freshness", quick=True)
        drawn = {colour: count for count, colour in picture.convert("RGB").getcolors(1 << 20)}
        assert drawn.get((0, 0x72, 0xB2), 0) > 200, "no line is drawn"
