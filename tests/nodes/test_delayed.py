"""Label modes: what the log is told of an impression and when, against the oracle under hostile schedules."""

from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.events import Fate
from contracts.features import STATEFUL
from contracts.segments import ORDER, Role
from nodes.delayed import judged
from nodes.featurize_chunks import example_columns
from nodes.join import Joiner, Settled
from nodes.order import LogOrder
from nodes.sample import sample
from tests.nodes.join_oracle import Event, frame, log_rows
from tests.nodes.test_join import DISORDER, WAIT, streams

MODES = ("wait", "fake_negative", "fnc", "es_dfm", "dfm")
OBSERVE = {"wait": WAIT, "fake_negative": 0, "fnc": 0, "es_dfm": 3, "dfm": 3}
NEVER = 10**9


def app_with(mode: str, dedupe_ms: int, **sampling: object) -> App:
    labels = {"mode": mode, "wait_s": WAIT / 1000, "observe_s": 0.003, "dedupe_s": dedupe_ms / 1000}
    over = {"labels": labels, "ingest": {"disorder_s": DISORDER / 1000}, "sampling": sampling}
    if sampling:  # streaming features would lack what is sampled out
        features = [f for f in load_app("adsim").features if f.kind not in STATEFUL]
        over["features"] = [f.model_dump(by_alias=True, exclude_none=True) for f in features]
    return load_app("adsim", over)


APPS = {(mode, dedupe_ms): app_with(mode, dedupe_ms) for mode in MODES for dedupe_ms in (0, 12, 14, 25)}


def told(parts: list[Settled]):
    columns = ["impression_id", "event_time_ms", "_hash", "_log_ms", "role", "label", "elapsed_s"]
    rows = pl.concat([part.examples for part in parts]).select(columns)
    return sorted((*row[:-1], round(row[-1], 4)) for row in rows.rows())


def expected(events: list[Event], mode: str, dedupe_ms: int):
    return sorted(log_rows(events, mode, WAIT, OBSERVE[mode], dedupe_ms, DISORDER))


def conserved(parts: list[Settled], mode: str) -> None:
    """Law 1: each accepted impression has one first row; each accepted click is a positive or a correction."""
    rows, fates = pl.concat([p.examples for p in parts]), pl.concat([p.fates for p in parts])
    accepted = fates.filter(fate=Fate.ACCEPTED.value)
    provisional, corrections = (rows.filter(role=role.value).height for role in (Role.PROVISIONAL, Role.CORRECTION))
    positives = rows.filter(label=1, role=Role.SETTLED.value).height
    negatives = rows.filter(label=0, role=Role.SETTLED.value).height
    shown = accepted.filter(stream="impressions").height
    assert positives + corrections == accepted.filter(stream="clicks").height
    assert shown == positives + (negatives if mode == "wait" else provisional)
    if mode in {"es_dfm", "dfm"}:
        assert provisional == corrections + negatives
    if mode == "wait":
        assert not provisional + corrections


@settings(max_examples=40, deadline=None)
@given(events=streams(), of=st.sampled_from(sorted(APPS)), randomness=st.randoms(use_true_random=False))
def test_any_arrival_cut_and_watermark_give_the_rows_that_the_oracle_gives(events, of, randomness):
    app, parts = APPS[of], []
    joiner = Joiner(app)
    order, released = LogOrder(["_log_ms", "impression_id", "role"]), []
    files = {name: [e for e in events if e.stream == name] for name in ("impressions", "clicks")}
    newest, due = dict.fromkeys(files, -NEVER), -NEVER
    while any(files.values()):
        stream = randomness.choice([name for name, rest in files.items() if rest])
        cut = randomness.randint(1, len(files[stream]))
        now, files[stream] = files[stream][:cut], files[stream][cut:]
        newest[stream] = max(newest[stream], *(event.at for event in now), -NEVER)
        randomness.shuffle(now)
        joiner.add(*((frame(now, app), None) if stream == "impressions" else (None, frame(now, app))))
        watermark = min((newest[name] - DISORDER for name, rest in files.items() if rest), default=NEVER)
        if randomness.random() < 0.7:
            due = max(due, randomness.randint(watermark - 8, watermark - 1))
            parts.append(joiner.settle(due))
            order.add(parts[-1].examples)
            released += [rows for _, rows in order.release(due - joiner.settle_after_ms, 100)]
        if randomness.random() < 0.2:
            state, joiner = joiner.state(), Joiner(app)
            joiner.restore(state)
    parts.append(joiner.settle(None))
    order.add(parts[-1].examples)
    released += [rows for _, rows in order.release(None, 100)]
    assert joiner.idle
    assert told(parts) == expected(events, *of)
    conserved(parts, of[0])
    log = pl.concat([parts[-1].examples.clear(), *released]).select("_log_ms", "impression_id", "role").rows()
    assert log == sorted(log), "the lag that the joiner names is the largest there is"


@pytest.mark.parametrize("of", [(mode, dedupe) for mode in ("fake_negative", "dfm") for dedupe in (0, 14)], ids=str)
def test_settling_at_every_millisecond_gives_the_rows_that_the_oracle_gives(of):
    random = Random(of[1])
    events = [
        Event(stream, line, f"id{random.randrange(600)}", random.randrange(45), random.randrange(2))
        for stream in ("impressions", "clicks")
        for line in range(1_500)
    ]
    joiner = Joiner(APPS[of])
    joiner.add(frame(events[:1_500], APPS[of]), frame(events[1_500:], APPS[of]))
    parts = []
    for due_ms in range(-8, 90):
        parts.append(joiner.settle(due_ms))
        places = parts[-1].examples["_log_ms"]
        assert (places > due_ms - 1 - joiner.settle_after_ms).all(), "a row that was known before came late"
        assert (places <= due_ms - (joiner.settle_after_ms if of[0] != "wait" else 0)).all()
    assert joiner.idle
    assert told(parts) == expected(events, *of)
    conserved(parts, of[0])


def at_once(app: App, impressions: list[tuple[str, int]], clicks: list[tuple[str, int]]) -> pl.DataFrame:
    joiner = Joiner(app)
    joiner.add(
        frame([Event("impressions", n, *row, n) for n, row in enumerate(impressions)], app),
        frame([Event("clicks", n, *row, n) for n, row in enumerate(clicks)], app),
    )
    return joiner.settle(None).examples.sort("_log_ms", "impression_id", "role")


@pytest.mark.parametrize(
    ("mode", "click_ms", "rows"),
    [
        ("wait", 104, [(100, 0, 1)]),
        ("fake_negative", 99, [(100, 0, 1)]),
        ("fake_negative", 100, [(100, 0, 1)]),
        ("fake_negative", 101, [(100, 1, 0), (101, 2, 1)]),
        ("fnc", 110, [(100, 1, 0), (110, 2, 1)]),
        ("fnc", 111, [(100, 1, 0)]),
        ("es_dfm", 103, [(103, 0, 1)]),
        ("es_dfm", 104, [(103, 1, 0), (104, 2, 1)]),
        ("dfm", 110, [(103, 1, 0), (110, 2, 1)]),
        ("dfm", 111, [(103, 1, 0), (110, 0, 0)]),
    ],
)
def test_each_edge_of_the_modes_lies_where_the_contract_says(mode, click_ms, rows):
    made = at_once(APPS[mode, 25], [("a", 100)], [("a", click_ms)])
    assert made.select("_log_ms", "role", "label").rows() == rows


def test_the_roles_of_an_impression_are_examples_of_their_own_with_its_features():
    made = at_once(APPS["dfm", 25], [("a", 100), ("b", 100)], [("a", 108)])
    examples = sample(made, APPS["dfm", 25]).kept.select(example_columns(APPS["dfm", 25]))
    assert examples["example_id"].n_unique() == examples.height == 4
    assert examples["event_time_ms"].to_list() == [103, 103, 108, 110]
    assert made["event_time_ms"].to_list() == [100] * 4, "the hour that the nets see is the impression's"
    again = at_once(APPS["wait", 25], [("a", 100)], [("b", 100)])
    settled = sample(again, APPS["wait", 25]).kept.select(example_columns(APPS["wait", 25]))
    assert settled["example_id"].item() != examples["example_id"][0]


def test_the_log_is_ordered_by_the_shared_key():
    assert list(ORDER) == ["event_time_ms", "impression_id", "role"]


@pytest.mark.parametrize("mode", MODES)
def test_sampling_keeps_the_expected_sum_of_any_row_loss(mode):
    """Each row weighs one over its chance to stay, so no loss over rows is biased: here every role has its own."""
    n, rate = 20_000, 0.25
    app = app_with(mode, 25, negative_keep_rate=rate)
    clicks = [(f"i{i}", i * 100 + i % 12) for i in range(0, n, 3)]
    made = at_once(app, [(f"i{i}", i * 100) for i in range(n)], clicks)
    kept = sample(made, app).kept
    for (role, label), rows in made.group_by("role", "label"):
        stands_for = kept.filter(role=role, label=label)["weight"].sum()
        assert stands_for == pytest.approx(rows.height, rel=0.05)
    corrections = kept.filter(role=Role.CORRECTION.value)
    assert corrections.height == made.filter(role=Role.CORRECTION.value).height
    ends = kept.filter(label=0).group_by("impression_id").agg(pl.len())["len"]
    if mode in {"es_dfm", "dfm"}:
        whole = made.filter(label=0).group_by("impression_id").agg(pl.len())["len"]
        assert sorted(ends.unique()) == sorted(whole.unique()), "an impression's negatives stay or go together"


@pytest.mark.parametrize("mode", MODES)
def test_figures_over_the_log_are_those_of_the_final_labels(mode):
    impressions, clicks = [(f"i{i}", i * 7) for i in range(300)], [(f"i{i}", i * 7 + i % 13) for i in range(0, 300, 2)]
    final = at_once(APPS["wait", 25], impressions, clicks)
    made = at_once(APPS[mode, 25], impressions, clicks)
    at, label, sign = judged(made, mode)
    truth = dict(final.select("impression_id", "label").rows())
    p = made["impression_id"].str.slice(1).cast(pl.Float64).to_numpy() / 300
    assert sign.sum() == final.height
    assert (sign * label).sum() == sum(truth.values())
    assert (sign * p[at] * label).sum() == pytest.approx(sum(int(i[1:]) / 300 * y for i, y in truth.items()))
    assert (sign * p[at]).sum() == pytest.approx(sum(int(i[1:]) / 300 for i in truth))
