"""Several models behind one scorer: who answers whom, what shadows say, and what is written down of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.errors import ContractError, StoreError
from nodes.catalogue import Catalogue
from nodes.fake_traffic import light_arrays
from nodes.fakes import ManualClock, MemoryLog, MemoryWeights
from nodes.featurize import featurize, fill_serving_defaults
from nodes.light_numpy import chance
from nodes.metrics_http import Metrics
from nodes.publish import Publisher
from nodes.score import LightScorer
from nodes.serve_metrics import ServeMetrics
from nodes.snapshot_sinks import open_snapshots
from nodes.snapshots import SNAPSHOT, Snapshots
from nodes.traffic_split import arm_of
from tests.flows.serving import EndingLog, ask, pctr_of, publish, responses_of, serve_all

SERVED = {"models": ["a", "b", "next"], "traffic": {"a": 75, "b": 25}, "shadows": ["next"]}


def split_app(**serving: Any) -> App:
    return load_app("adsim", {"model": {"embedding_dim": 1, "light": {"hidden": [2]}}, "serving": SERVED | serving})


def stores_of(app: App, **versions: int) -> dict[str, MemoryWeights]:
    """model=version: each scores with the logit -version / 100."""
    stores = {name: MemoryWeights(name) for name in ("a", "b", "next")}
    for name, number in versions.items():
        for each in range(1, number + 1):
            publish(App(app.folder, app.config.model_copy(update={"name": name}), app.impressions, app.clicks,
                        app.requests), stores[name], each)  # fmt: skip
    return stores


def of_user(line: bytes) -> str:
    return json.loads(line)["user"]["user_id"]


def test_each_user_is_answered_by_the_model_of_its_hash_from_one_version_of_it() -> None:
    app = split_app()
    lines, parts = ask(app, 60), list[pl.DataFrame]()
    asked, answered = EndingLog([*lines, b"junk"], clock_ms=ManualClock(5)), MemoryLog()
    said = serve_all(app, asked, answered, stores_of(app, a=1, b=3, next=2), snapshots=parts.append)
    answers = responses_of(answered)
    for line, response in zip(lines, answers, strict=False):
        assert response.model == arm_of(of_user(line), {"a": 75.0, "b": 25.0}, app.config.serving.salt)
        assert response.model_version == {"a": 1, "b": 3}[response.model]
        assert [s.pctr for s in response.scores] == [pytest.approx(pctr_of(response.model_version))] * 3
    assert (answers[-1].model, answers[-1].error and answers[-1].error.code) == (None, "not_json")
    by_model = Counter(response.model for response in answers[:-1])
    assert set(by_model) == {"a", "b"}
    assert said["models"] == {
        "a": {"requests": by_model["a"], "swaps": 1, "model_version": 1},
        "b": {"requests": by_model["b"], "swaps": 1, "model_version": 3},
        "next": {"requests": 0, "swaps": 1, "model_version": 2},
    }
    rows = pl.concat(parts)
    shadow = rows.filter("shadow")
    assert (shadow.height, rows.height, set(shadow["model"]), set(shadow["model_version"])) == (180, 360, {"next"}, {2})
    assert shadow["pctr"].to_list() == [pytest.approx(pctr_of(2))] * 180


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 20), min_size=1), st.text(max_size=5))
def test_shares_are_what_the_hash_deals_out_and_a_user_keeps_its_model(weights: dict[str, int], salt: str) -> None:
    total = sum(weights.values())
    shares = {name: 100 * weight / total for name, weight in weights.items()}
    users = [f"u{number}" for number in range(2000)]
    dealt = [arm_of(user, shares, salt) for user in users]
    assert dealt == [arm_of(user, shares, salt) for user in users]
    for name, share in shares.items():
        assert abs(dealt.count(name) / 20 - share) < 6  # five deviations of a fair deal


def test_only_the_users_of_a_share_that_changes_hands_change_models() -> None:
    users = [f"u{number}" for number in range(3000)]
    before = [arm_of(user, {"a": 90, "b": 10}, "1") for user in users]
    after = [arm_of(user, {"a": 80, "b": 20}, "1") for user in users]
    moved = Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])
    assert set(moved) == {("a", "b")}
    again = [arm_of(user, {"a": 90, "b": 10}, "2") for user in users]
    both = sum(x == y == "b" for x, y in zip(before, again, strict=True))
    assert both < 90, "another salt deals anew: some 30 of 300"


@pytest.mark.parametrize(
    ("serving", "word"),
    [
        ({"traffic": {"a": 75, "b": 20}}, "sum to 100, not 95"),
        ({"traffic": {"a": 110, "b": -10}}, "above 0"),
        ({"traffic": {"a": 75, "bb": 25}}, "no model 'bb'; did you mean 'b'"),
        ({"shadows": ["nxt"]}, "no model 'nxt'; did you mean 'next'"),
        ({"shadows": ["a", "next"]}, "'a' has traffic and is a shadow"),
        ({"shadows": []}, "'next' has neither traffic"),
        ({"models": ["a", "b", "next", "a"]}, "names one twice"),
        ({"models": ["A", "b", "next"]}, "models"),
        ({"models": [], "shadows": [], "traffic": {"a": 100}}, "no model 'a'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(serving: dict[str, Any], word: str) -> None:
    with pytest.raises(ContractError, match=word):
        split_app(**serving)


def test_a_model_without_a_store_and_a_shadow_without_a_record_are_refused() -> None:
    app = split_app()
    stores = stores_of(app)
    with pytest.raises(ContractError, match="model 'b' is to be served"):
        serve_all(app, EndingLog(), MemoryLog(), {"a": stores["a"], "next": stores["next"]}, snapshots=print)
    with pytest.raises(ContractError, match="shadow 'next' scores for the record alone"):
        serve_all(app, EndingLog(), MemoryLog(), stores)


def random_weights(app: App) -> MemoryWeights:
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 0, force=True)
    publisher.offer(light_arrays(app, 3, scale=0.5), position=1, step=1, trained_until_ms=1)
    publisher.finish()
    return store


@pytest.mark.parametrize("ids_only", [False, True])
def test_snapshots_are_what_the_featurizer_gives_for_the_request_and_explain_its_scores(
    adsim: App, tmp_path: Path, *, ids_only: bool
) -> None:
    lines, catalogue = ask(adsim, 20), None
    item = [column.name for column in adsim.requests.columns if column.side == "item"]
    whole = [json.loads(line) for line in lines]
    if ids_only:
        known = {c["item_id"]: c for request in whole for c in request["candidates"]}
        shown = pl.DataFrame([{name: c.get(name) for name in ["item_id", *item]} for c in known.values()],
                             schema_overrides={"bid": pl.Float64()})  # fmt: skip
        catalogue = Catalogue(adsim, shown)
        whole = [r | {"candidates": [known[c["item_id"]] for c in r["candidates"]]} for r in whole]
        lines = [json.dumps(r | {"candidates": [{"item_id": c["item_id"]} for c in r["candidates"]]}).encode()
                 for r in whole]  # fmt: skip
    bad = json.loads(lines[0]) | {"id": "half"}
    bad["candidates"] = [{"item_id": 7}, *bad["candidates"]]
    asked, store = (
        EndingLog([*lines, b"junk", json.dumps(bad).encode()], clock_ms=ManualClock(5)),
        random_weights(adsim),
    )
    with open_snapshots(str(tmp_path / "s"), adsim.config.kafka) as sink:
        serve_all(adsim, asked, MemoryLog(), store, snapshots=sink, catalogue=catalogue, max_requests=7)
    rows = pl.read_parquet(tmp_path / "s" / "*.parquet").sort("request_id", "candidate")
    light = [f for f in adsim.features if f.only is None]
    assert rows.columns == [*SNAPSHOT, *(f.name for f in light)]
    mine = rows.filter(pl.col("request_id") != "half")
    types = {column.name: column.dtype for column in adsim.requests.columns}
    given = pl.DataFrame(
        [
            {"request_id": r["id"], "candidate": at, "event_time_ms": r["event_time_ms"]} | r["user"] | r["context"] | c
            for r in whole
            for at, c in enumerate(r["candidates"])
        ],
        schema={"request_id": pl.String(), "candidate": pl.Int64()} | {n: t for n, t in types.items() if n != "id"},
    ).sort("request_id", "candidate")
    assert mine.select("request_id", "candidate").equals(given.select("request_id", "candidate"))
    assert mine.select(f.name for f in light).equals(featurize(fill_serving_defaults(given, light), light))
    scorer = LightScorer(adsim, store.fetch())
    explained = chance(scorer.logits(rows.select(f.name for f in light)), "sigmoid")
    assert rows["pctr"].to_list() == pytest.approx(explained.tolist(), abs=1e-5)
    assert rows.filter(pl.col("request_id") == "half")["candidate"].to_list() == [1, 2, 3], "the refused one has no row"
    assert set(rows.select("model", "model_version", "schema_id", "shadow").rows()) == {
        ("adsim", 1, adsim.schema_id, False)
    }


def test_what_a_full_queue_or_a_sink_out_of_order_drops_is_counted(adsim: App) -> None:
    def broken(_: pl.DataFrame) -> None:
        raise StoreError("disk full")

    for sink, waiting, offers in ((broken, 9, 2), (list[pl.DataFrame]().append, 1, 3)):
        metrics = Metrics("serve")
        told = ServeMetrics(metrics, ManualClock())
        lines, scorer = ask(adsim, 1), LightScorer(adsim, None)
        recorded = Snapshots(adsim, sink, {}, told, ManualClock(), most_waiting=waiting)
        for _ in range(offers):  # nothing takes from the queue yet
            recorded.offer(lines, scorer.answer(lines, now_ms=0))
        recorded.offer([b"junk"], scorer.answer([b"junk"], now_ms=0))
        with recorded:
            pass
        assert "ctr_serve_snapshots_dropped_total 2.0" in metrics.text()


def test_snapshots_on_a_topic_are_arrow_messages(adsim: App, kafka: Any) -> None:
    topic = kafka.create()
    frame = pl.DataFrame({"pctr": [n / 5000 for n in range(5000)]})
    with open_snapshots(kafka.url(topic), adsim.config.kafka) as sink:
        sink(frame)
    read = kafka.read(topic)
    assert len(read) >= 2
    assert pl.concat(pl.read_ipc_stream(each.value) for each in read).equals(frame)
