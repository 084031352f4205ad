"""The simulator keeps its word: rates, truth, order, bytes and memory."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from contracts.app import App
from contracts.errors import ContractError
from nodes.decode import decode
from nodes.simulate import Drift, Faults, simulate
from nodes.simulate.faults import DAMAGES, damaged
from nodes.simulate.history import Histories
from nodes.simulate.world import ADS, CTR, HISTORY, HOUR_MS, START_MS, Rows, World

IMPRESSIONS = 40_000
RATES = Faults(duplicates=0.03, late=0.01, orphans=0.05, malformed=0.01)
FIELDS = (
    "user_id", "segment", "age_band", "device", "site", "position", "hour",
    "item_id", "campaign_id", "category", "format",
)  # fmt: skip
NONE = Faults(duplicates=0, late=0, orphans=0, malformed=0)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("faulty")
    return out, simulate(out, impressions=IMPRESSIONS, seed=3, rates=RATES)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Impressions in event order with `p_truth`, `clicked` and `delay_ms`."""
    out = tmp_path_factory.mktemp("clean")
    simulate(out, impressions=IMPRESSIONS, seed=2, rates=NONE)
    clicks = pl.read_ndjson(out / "clicks.ndjson").select("impression_id", clicked_ms="event_time_ms")
    truth = pl.read_parquet(out / "truth.parquet").drop("event_time_ms")
    return (
        pl.read_ndjson(out / "impressions.ndjson")
        .join(truth, on="impression_id", how="left", validate="1:1")
        .join(clicks, on="impression_id", how="left", validate="1:1")
        .with_columns(
            clicked=pl.col("clicked_ms").is_not_null(),
            delay_ms=pl.col("clicked_ms") - pl.col("event_time_ms"),
            hour=pl.col("event_time_ms") // HOUR_MS % 24,
        )
        .sort("event_time_ms", "impression_id")
    )


def good_rows(path: Path, columns: set[str]) -> list[dict[str, Any]]:
    """What a strict reader would keep, row by row, in file order."""
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(line.decode())
        except ValueError:
            continue
        if not isinstance(row, dict) or set(row) != columns or type(row["event_time_ms"]) is not int:
            continue
        if START_MS <= row["event_time_ms"] < 2 * START_MS:
            rows.append(row)
    return rows


def not_late(rows: list[dict[str, Any]], disorder_s: float) -> list[dict[str, Any]]:
    newest, kept = 0, []
    for row in rows:
        if newest - row["event_time_ms"] <= disorder_s * 1000:
            kept.append(row)
        newest = max(newest, row["event_time_ms"])
    return kept


def fates_by_hand(out: Path, app: App, rates: Faults) -> dict[str, Counter[str]]:
    """Ingest's rules in plain loops, to compare with what the simulator says it planted."""
    fates = {"impressions": Counter[str](), "clicks": Counter[str]()}
    accepted: dict[str, int] = {}
    lines = {stream: (out / f"{stream}.ndjson").read_bytes().count(b"\n") for stream in fates}
    rows = {
        "impressions": good_rows(out / "impressions.ndjson", set(app.impressions.schema_)),
        "clicks": good_rows(out / "clicks.ndjson", set(app.clicks.schema_)),
    }
    for stream, tally in fates.items():
        tally["read"], tally["dead_lettered"] = lines[stream], lines[stream] - len(rows[stream])
        kept = not_late(rows[stream], rates.disorder_s)
        tally["late"] = len(rows[stream]) - len(kept)
        rows[stream] = sorted(kept, key=lambda row: row["event_time_ms"])
    for row in rows["impressions"]:
        fate = "duplicate" if row["impression_id"] in accepted else "accepted"
        accepted.setdefault(row["impression_id"], row["event_time_ms"])
        fates["impressions"][fate] += 1
    clicked: set[str] = set()
    for row in rows["clicks"]:
        shown = accepted.get(row["impression_id"])
        if shown is None or row["event_time_ms"] > shown + rates.dedupe_s * 1000:
            fate = "orphan"
        elif row["event_time_ms"] > shown + rates.wait_s * 1000:
            fate = "late"
        else:
            fate = "duplicate" if row["impression_id"] in clicked else "accepted"
            clicked.add(row["impression_id"])
        fates["clicks"][fate] += 1
    return fates


def within(count: int, trials: int, rate: float) -> bool:
    return abs(count - trials * rate) <= 4.5 * np.sqrt(trials * rate * (1 - rate)) + 1


def test_what_it_says_it_planted_is_what_a_reader_finds(faulty: tuple[Path, dict[str, Any]], adsim: App) -> None:
    out, summary = faulty
    found = fates_by_hand(out, adsim, RATES)
    for stream in ("impressions", "clicks"):
        expected = {name: count for name, count in summary["expected"][stream].items() if name != "proper"}
        assert {name: found[stream][name] for name in expected} == expected
    assert json.loads((out / "simulation.json").read_text()) == summary


def test_every_rate_is_met(faulty: tuple[Path, dict[str, Any]]) -> None:
    _, summary = faulty
    shown, clicks = summary["expected"]["impressions"], summary["expected"]["clicks"]
    assert shown["proper"] == IMPRESSIONS
    assert within(shown["duplicate"], IMPRESSIONS, RATES.duplicates)
    # events near the end of the log cannot come late, so a few are missing
    assert within(shown["late"], IMPRESSIONS, RATES.late)
    assert within(shown["dead_lettered"], shown["read"], RATES.malformed / (1 + RATES.malformed))
    assert within(clicks["duplicate"], clicks["proper"], RATES.duplicates)
    assert clicks["proper"] * (RATES.orphans + 0.3 * RATES.late) < clicks["orphan"] < clicks["proper"] * 0.1


def test_decode_refuses_exactly_the_damaged_lines(faulty: tuple[Path, dict[str, Any]], adsim: App) -> None:
    out, summary = faulty
    for stream, contract in (("impressions", adsim.impressions), ("clicks", adsim.clicks)):
        lines = (out / f"{stream}.ndjson").read_bytes().split(b"\n")[:-1]
        made = decode(lines, contract, stream=stream, origin="x", first_line=0, max_event_bytes=1 << 20)
        # out of a plausible year is found one step later, by the reader
        good = made.frame.filter(pl.col("event_time_ms").is_between(START_MS, 2 * START_MS)).height
        assert len(lines) - good == summary["expected"][stream]["dead_lettered"]


def test_every_damage_changes_the_line() -> None:
    line = b'{"click_id":"k1","impression_id":"i1","event_time_ms":1767571257335}'
    made = {damaged(line, kind) for kind in range(len(DAMAGES))}
    assert len(made) == len(DAMAGES)
    assert line not in made
    assert not any(b"\n" in each for each in made)


def test_the_same_seed_gives_the_same_bytes(faulty: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = faulty
    simulate(tmp_path / "again", impressions=IMPRESSIONS, seed=3, rates=RATES)
    simulate(tmp_path / "other", impressions=IMPRESSIONS, seed=4, rates=RATES)
    for name in ("impressions.ndjson", "clicks.ndjson", "truth.parquet", "simulation.json"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (out / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_the_truth_names_each_impression_once_at_its_time(clean: pl.DataFrame, faulty: tuple[Path, Any]) -> None:
    assert clean["impression_id"].n_unique() == clean.height == IMPRESSIONS
    assert clean["p_truth"].null_count() == 0
    truth = pl.read_parquet(faulty[0] / "truth.parquet")
    assert truth.schema == {"impression_id": pl.String, "p_truth": pl.Float64, "event_time_ms": pl.Int64}
    columns = set(clean.columns) - {"p_truth", "clicked_ms", "clicked", "delay_ms", "hour"}
    first = pl.DataFrame(good_rows(faulty[0] / "impressions.ndjson", columns), infer_schema_length=None)
    first = first.group_by("impression_id").agg(pl.col("event_time_ms").min())
    assert first.join(truth, on=["impression_id", "event_time_ms"], how="anti").is_empty()
    assert truth.height == first.height


def test_clicks_come_as_often_as_the_truth_says(clean: pl.DataFrame) -> None:
    p = pl.col("p_truth")
    binned = (
        clean.group_by(bin=p.rank("ordinal") * 20 // (clean.height + 1))
        .agg(clicks=pl.col("clicked").sum(), p=p.sum(), v=(p * (1 - p)).sum())
        .sort("bin")
    )
    z = (binned["clicks"] - binned["p"]) / binned["v"].sqrt()
    assert binned.height == 20
    assert z.abs().max() < 4.5  # type: ignore[operator]
    assert (z**2).sum() < 50  # chi-squared of 20: one in 5,000
    assert abs(clean["p_truth"].mean() - CTR) < 0.005  # type: ignore[operator]


def auc(score: np.ndarray, p: np.ndarray) -> float:
    """Expected AUC of a score when clicks are drawn with probability p."""
    order = np.argsort(score)
    p = p[order]
    return float((p * (np.cumsum(1 - p) - (1 - p) / 2)).sum() / (p.sum() * (1 - p).sum()))


def best_linear(frame: pl.DataFrame) -> np.ndarray:
    """Logits of a logistic regression on the one-hot fields, fitted to the true probabilities themselves."""
    p = frame["p_truth"].to_numpy()
    columns = [frame[field].rank("dense").fill_null(0).to_numpy().astype(np.int64) for field in FIELDS]
    logit = np.full(frame.height, np.log(p.mean() / (1 - p.mean())))
    for _ in range(12):  # Newton, one field after the other: a row has one value of a field
        for codes in columns:
            guess = 1 / (1 + np.exp(-logit))
            step = np.bincount(codes, p - guess) / (np.bincount(codes, guess * (1 - guess)) + 1e-3)
            logit += np.clip(step, -1, 1)[codes]
    return logit


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_linear_model_comes_near_the_truth(seed: int, tmp_path: Path) -> None:
    simulate(tmp_path, impressions=30_000, seed=seed, rates=NONE)
    truth = pl.read_parquet(tmp_path / "truth.parquet").drop("event_time_ms")
    frame = pl.read_ndjson(tmp_path / "impressions.ndjson").join(truth, on="impression_id")
    frame = frame.with_columns(hour=pl.col("event_time_ms") // HOUR_MS % 24)
    p = frame["p_truth"].to_numpy()
    assert 0.02 <= p.mean() <= 0.08
    assert 0.75 <= auc(p, p) <= 0.85
    assert auc(best_linear(frame), p) <= auc(p, p) - 0.03


def test_nearly_all_clicks_come_inside_the_wait_and_some_do_not(clean: pl.DataFrame) -> None:
    delay_s = clean["delay_ms"].drop_nulls() / 1000
    assert delay_s.min() > 0  # type: ignore[operator]
    assert 0.99 < (delay_s <= 600).mean() < 1  # type: ignore[operator]
    assert 5 < delay_s.median() < 30  # type: ignore[operator]


def test_events_are_out_of_order_but_within_the_disorder(tmp_path: Path) -> None:
    simulate(tmp_path, impressions=20_000, seed=1, days=0.1, rates=NONE)
    for stream in ("impressions", "clicks"):
        time_ms = pl.read_ndjson(tmp_path / f"{stream}.ndjson")["event_time_ms"]
        behind = time_ms.cum_max() - time_ms
        assert behind.max() <= 60_000  # type: ignore[operator]
        assert (behind > 10_000).mean() > 0.2  # type: ignore[operator]


def test_an_ad_is_shown_only_while_its_campaign_runs() -> None:
    world = World(np.random.default_rng(5), days=2.0)
    rng = np.random.default_rng(6)
    rows = world.sample(rng, np.sort(rng.random(20_000)), np.full(20_000, 2))
    hour = (rows.time_ms - START_MS) // HOUR_MS
    assert ((world.starts[rows.ad] <= hour) & (hour < world.ends[rows.ad])).all()
    assert (world.starts > 0).any()
    assert (world.ends < world.hours).any()
    shown = np.sort(np.bincount(rows.ad, minlength=ADS))[::-1]
    assert shown[:40].sum() > 2.5 * shown[200:240].sum()  # Zipf: the head against the middle
    assert (rows.ad[::2] != rows.ad[1::2]).all()  # a view shows no ad twice


def test_history_holds_only_clicks_of_the_past_and_keeps_the_last() -> None:
    known = Histories(np.zeros(3, np.int64), np.array([7, 8, 9]))
    known.clicked(np.array([0, 0, 1]), np.array([11, 10, 12]), np.array([200, 100, 100]))
    items = pl.Series([f"a{index}" for index in range(ADS)])
    assert known.column(99, items).to_list()[:2] == [["a7", "a8", "a9"], []]
    assert known.column(150, items).to_list()[:2] == [["a7", "a8", "a9", "a10"], ["a12"]]
    assert known.column(200, items).to_list()[0] == ["a7", "a8", "a9", "a10", "a11"]
    known.clicked(np.zeros(30, np.int64), np.arange(30), 300 + np.arange(30))
    assert known.column(400, items).to_list()[0] == [f"a{index}" for index in range(30 - HISTORY, 30)]


def test_histories_in_the_log_grow_with_the_users_own_clicks(clean: pl.DataFrame) -> None:
    first = clean.group_by("user_id", maintain_order=True).agg(pl.col("history").first())
    last = clean.group_by("user_id", maintain_order=True).agg(
        pl.col("history").last().alias("end"), pl.col("event_time_ms").last().alias("at")
    )
    clicks = clean.filter("clicked").sort("clicked_ms").group_by("user_id").agg("item_id", "clicked_ms")
    grown = 0
    for row in first.join(last, on="user_id").join(clicks, on="user_id").iter_rows(named=True):
        past = [ad for ad, at in zip(row["item_id"], row["clicked_ms"], strict=True) if at <= row["at"]]
        news = len(row["end"]) - len(row["history"]) if len(row["end"]) < HISTORY else None
        if news is not None:
            assert row["end"] == row["history"] + past[:news]
            grown += news
    assert grown > 300


def test_position_one_is_clicked_most(clean: pl.DataFrame) -> None:
    by_position = clean.group_by("position").agg(pl.col("p_truth").mean()).sort("position")["p_truth"]
    assert by_position[0] > 1.5 * by_position[7]


PEAK = """
import sys
from pathlib import Path
from nodes.simulate import simulate
simulate(Path(sys.argv[1]), impressions=int(sys.argv[2]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    def peak_mb(impressions: int) -> float:
        command = [sys.executable, "-c", PEAK, str(tmp_path), str(impressions)]
        return int(subprocess.run(command, check=True, capture_output=True).stdout) / 1024

    small, large = peak_mb(60_000), peak_mb(360_000)
    assert large - small < 60  # the 300,000 more are 110 MB on disk


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"impressions": 0}, "at least 1 impression"),
        ({"days": 0.0}, "0 < days"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"rates": Faults(late=1.5)}, "late = 1.5 is no rate"),
        ({"rates": Faults(late=0.6, duplicates=0.6)}, "at most one"),
        ({"rates": Faults(wait_s=-1)}, "wait_s"),
    ],
)
def test_senseless_parameters_are_refused(wrong: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=what):
        simulate(tmp_path, **wrong)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="cannot be written"):
        simulate(tmp_path / "file", impressions=10)


def test_one_impression_is_enough(tmp_path: Path) -> None:
    summary = simulate(tmp_path, impressions=1, rates=NONE)
    assert summary["impressions"] == 1
    assert pl.read_parquet(tmp_path / "truth.parquet").height == 1


def test_the_command_prints_one_json_object_last(tmp_path: Path) -> None:
    from deploy.commands.simulate import app

    made = CliRunner().invoke(app, ["--out", str(tmp_path), "--impressions", "3000", "--orphans", "0.5", "--json"])
    assert made.exit_code == 0, made.output
    summary = json.loads(made.stdout.strip().splitlines()[-1])
    assert summary["parameters"]["orphans"] == 0.5
    assert summary["expected"]["clicks"]["orphan"] > 30
    wrong = CliRunner().invoke(app, ["--out", str(tmp_path), "--late", "2"])
    assert wrong.exit_code == 2


def _likings(drift: Drift, *hours: float) -> list[np.ndarray]:
    """The log-odds of the same impressions at several times."""
    world = World(np.random.default_rng(5), days=30.0, drift=drift)
    rows = world.sample(np.random.default_rng(6), np.full(2000, 0.1), np.ones(2000, np.int64))
    start = rows.time_ms - rows.time_ms % (24 * HOUR_MS)
    return [
        world.logit(Rows(rows.user, rows.ad, rows.device, rows.site, rows.position, start + round(hour * HOUR_MS)))
        for hour in hours
    ]


def test_a_drift_comes_back_after_its_period_and_a_sum_of_swings_never_does() -> None:
    first, day, back = _likings(Drift(0.5, 10.0), 0, 24, 120)  # the hour of the day is the same
    assert np.abs(first - back).max() < 1e-9
    assert np.abs(first - day).max() > 0.3
    first, back = _likings(Drift(0.5, 10.0, swings=3), 0, 120)
    assert np.abs(first - back).max() > 0.3
    still = _likings(Drift(0.0, 10.0), 0, 24, 120)
    assert np.abs(still[0] - still[1]).max() < 1e-9


@pytest.mark.parametrize(("over", "groups"), [("category", 12), ("campaign", 100)])
def test_a_drift_is_as_large_as_it_says_and_belongs_to_what_it_says(over: str, groups: int) -> None:
    drift = Drift(0.5, 10.0, over, swings=2)
    world = World(np.random.default_rng(5), days=30.0, drift=drift)
    hours = np.arange(0, 24 * 29, 24)
    swing = np.array(_likings(drift, *hours)) - np.array(_likings(Drift(0.0, 10.0, over, swings=2), *hours))
    swing -= swing.mean(axis=1).mean()  # the intercept differs
    assert swing.std() == pytest.approx(0.5, rel=0.1)
    ads = world.sample(np.random.default_rng(6), np.full(2000, 0.1), np.ones(2000, np.int64)).ad
    of = getattr(world, over)[ads]
    for value in np.unique(of):
        assert np.ptp(swing[:, of == value], axis=1).max() < 1e-5  # the tables are float32
    assert len(np.unique(of)) <= groups
    assert len(np.unique(swing[7].round(4))) > groups // 2


@pytest.mark.parametrize("drift", [Drift(-1.0), Drift(period_h=0), Drift(swings=0), Drift(over="hour")])
def test_a_drift_that_is_none_is_refused(drift: Drift, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="simulate: a drift"):
        simulate(tmp_path, impressions=10, drift=drift)
