"""What is around the scorer's loop: headers and topics of answers, brokers that go away, what it tells of itself."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import polars as pl
import pytest

from contracts.app import App
from contracts.errors import ContractError, UnreachableError
from contracts.stores import Record
from nodes.catalogue import Catalogue, item_contract
from nodes.fake_traffic import requests
from nodes.fakes import ManualClock, MemoryLog, MemoryWeights
from nodes.metrics_http import Metrics
from nodes.refresh import Refresher
from nodes.serve_metrics import ServeMetrics
from tests.flows.serving import EndingLog, ask, publish, read, responses_of, serve_all, small_app

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def app() -> App:
    return small_app()


def answered_with(app: App, *headers: tuple[str, bytes], **more: Any) -> Record:
    asked, answered = EndingLog(clock_ms=ManualClock(5)), MemoryLog()
    asked.append([Record(b"key", ask(app, 1)[0], headers)])
    serve_all(app, asked, answered, MemoryWeights("adsim"), **more)
    return answered.records[0]


def test_correlation_and_trace_headers_come_back_and_no_others(app: App) -> None:
    kept = (("kafka_correlationId", b"\x01"), ("kafka_replyTopic", b"answers"), ("traceparent", TRACE))
    back = answered_with(app, *kept, ("cookie", b"x"), ("tracestate", b"x" * 5000), ("traceparent", b"00-b"))
    assert (back.key, back.headers) == (b"key", kept)


def test_a_trace_is_passed_on_whole_where_it_is_valid_and_not_at_all_where_it_is_not(app: App) -> None:
    state, event = ("tracestate", b"vendor=1"), ("ce_id", b"e1")
    good = dict(answered_with(app, ("traceparent", TRACE), state, event, ("ce_traceparent", TRACE)).headers)
    assert (good["traceparent"], good["tracestate"], good["ce_traceparent"]) == (TRACE, b"vendor=1", TRACE)
    later = b"01" + TRACE[2:] + b"-more"
    assert dict(answered_with(app, ("traceparent", later)).headers) == {"traceparent": later}
    for bad in (b"", b"00-a", TRACE.upper(), b"ff" + TRACE[2:], TRACE + b"-more", b"01" + TRACE[2:] + b"more",
                TRACE[:3] + b"0" * 32 + TRACE[35:], TRACE[:36] + b"0" * 16 + TRACE[52:], TRACE + b"\n"):  # fmt: skip
        assert answered_with(app, ("traceparent", bad), state).headers == (), bad


def test_a_cloudevent_is_answered_by_one_with_an_id_of_its_own_that_repeats(app: App) -> None:
    first, again = (dict(answered_with(app, ("ce_id", b"e1"), ("ce_source", b"/shop")).headers) for _ in range(2))
    assert first == again
    assert first["ce_id"] != b"e1"
    assert {name: first[name] for name in ("ce_specversion", "ce_type", "ce_source", "ce_time")} == {
        "ce_specversion": b"1.0",
        "ce_type": b"ctr.response.v1",
        "ce_source": b"/rocket/adsim/serve",
        "ce_time": b"1970-01-01T00:00:00.005Z",
    }
    assert first["ce_id"] != dict(answered_with(app, ("ce_id", b"e1"), ("ce_source", b"/app")).headers)["ce_id"]


def test_a_reply_topic_that_is_not_allowed_gets_no_scores_and_the_error_goes_to_the_topic_of_responses(
    app: App,
) -> None:
    asked_for = (("kafka_correlationId", b"1"), ("kafka_replyTopic", b"mine"))
    allowed = answered_with(app, *asked_for, reply_topics={"mine"})
    assert (read(allowed).error, allowed.headers) == (None, asked_for)
    refused = answered_with(app, *asked_for, reply_topics={"ctr.responses.v1"})
    said = read(refused)
    assert (said.id, said.error and said.error.code, list(said.scores)) == ("request-0", "reply_topic_refused", [])
    assert refused.headers == asked_for[:1]


class Refusing(MemoryLog):
    """Refuses what is longer than `most` bytes, as a topic does."""

    most = 400

    def append(self, records: Any) -> None:
        if any(len(record.value) > self.most for record in records):
            raise ContractError("too large")
        super().append(records)


def test_an_answer_that_is_too_large_for_its_topic_does_not_stop_the_others(app: App) -> None:
    lines = [*ask(app, 2), *(line.replace(b"request-0", b"large") for line in requests(app, 1, 30))]
    asked, answered = EndingLog(lines, clock_ms=ManualClock(5)), Refusing()
    said = serve_all(app, asked, answered, MemoryWeights("adsim"))
    assert (said["by_source"], said["errors"], asked.committed) == ({"prior": 2}, {"answer_refused": 1}, 3)
    assert [response.id for response in responses_of(answered)] == ["request-0", "request-1", "large"]


class Away(MemoryLog):
    """Takes nothing `times` times, and lets a second pass each time."""

    def __init__(self, times: int, clock: ManualClock, stop: Callable[[], None] = lambda: None) -> None:
        self.look: Callable[[], object] = lambda: None
        super().__init__()
        self.times, self.clock, self.stop = times, clock, stop

    def append(self, records: Any) -> None:
        self.look()
        if records and self.times:
            self.times -= 1
            self.clock.advance(1000)
            self.stop()
            raise UnreachableError("kafka://h: cannot be reached")
        super().append(records)


def test_while_the_brokers_are_away_answers_are_made_again_until_they_are_late(app: App) -> None:
    clock = ManualClock(5)
    asked, answered = EndingLog(ask(app, 2), clock_ms=clock), Away(3, clock)
    metrics = Metrics("serve")
    told, pages = ServeMetrics(metrics, clock), list[tuple[str, str]]()
    answered.look = lambda: pages.append((metrics.health()[1], metrics.readiness()[1]))
    said = serve_all(app, asked, answered, MemoryWeights("adsim"), clock_ms=clock, metrics=told)
    assert (said["by_source"], asked.committed, said["left"]) == ({"expired": 2}, 2, 0)
    assert "ctr_serve_append_retries_total 3.0" in metrics.text()
    away = "kafka://h: cannot be reached"
    assert pages == [("ok", "ready"), *[(f"degraded: {away}", away)] * 3]
    assert metrics.health() == (True, "ok")


def test_a_scorer_that_is_told_to_stop_does_not_wait_for_brokers_that_are_away(app: App) -> None:
    clock = ManualClock(5)
    asked = EndingLog(ask(app, 2), clock_ms=clock)
    answered = Away(10**9, clock, stop=lambda: asked.stop.set())  # noqa: PLW0108  # it is made later
    said = serve_all(app, asked, answered, MemoryWeights("adsim"), clock_ms=clock)
    assert (said["requests"], said["left"], asked.committed) == (0, 2, 0)


class Part(NamedTuple):
    partitions: int
    lag: int


def test_what_is_served_is_told_as_metrics(app: App) -> None:
    store, clock, metrics = MemoryWeights("adsim"), ManualClock(60_000), Metrics("serve")
    publish(app, store, 1, clock)
    asked = EndingLog([*ask(app, 4), b"junk"], clock_ms=clock)
    clock.advance(20)
    told = ServeMetrics(metrics, clock)
    serve_all(app, asked, MemoryLog(), store, clock_ms=clock, metrics=told, standing=lambda: Part(2, 7), max_requests=5)
    page = metrics.text().splitlines()
    assert {
        'ctr_serve_requests_total{source="model"} 4.0',
        'ctr_serve_errors_total{code="not_json"} 1.0',
        "ctr_serve_latency_seconds_sum 0.1",
        "ctr_serve_batch_requests_sum 5.0",
        'ctr_serve_model_version{model="adsim"} 1.0',
        'ctr_serve_model_age_seconds{model="adsim"} 0.02',
        'ctr_serve_freshness_seconds{model="adsim"} 60.019',
        'ctr_serve_swaps_total{model="adsim"} 1.0',
        "ctr_serve_lag_records 7.0",
        "ctr_serve_partitions 2.0",
    } <= set(page)
    assert metrics.readiness() == (True, "ready")


def test_without_partitions_or_brokers_it_is_not_ready_and_with_brokers_away_degraded(app: App) -> None:
    def told_by(standing: Callable[[], Part]) -> Metrics:
        metrics = Metrics("serve")
        told = ServeMetrics(metrics, ManualClock(5))
        serve_all(app, EndingLog(), MemoryLog(), MemoryWeights("adsim"), metrics=told, standing=standing)
        return metrics

    def away() -> Part:
        raise UnreachableError("kafka://h: cannot be reached")

    spare, lost = told_by(lambda: Part(0, 0)), told_by(away)
    assert spare.readiness()[0] is False
    assert (spare.health(), lost.health()) == ((True, "ok"), (True, "degraded: kafka://h: cannot be reached"))
    assert (lost.readiness(), "ctr_serve_degraded 1.0" in lost.text()) == (
        (False, "kafka://h: cannot be reached"),
        True,
    )


def test_while_it_joins_it_looks_again_at_once_and_then_once_a_second(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, looked_s = [100.0], list[float]()

    class Slow(EndingLog):
        """50 ms a poll, for eight seconds."""

        def poll(self, max_wait_ms: int, max_records: int) -> Any:
            now_s[0] += 0.05
            return [] if now_s[0] < 108 else super().poll(max_wait_ms, max_records)

    def standing() -> Part:
        looked_s.append(now_s[0])
        return Part(0 if now_s[0] < 103.02 else 1, 0)

    monkeypatch.setattr("flows.serve.time.monotonic", lambda: now_s[0])
    metrics = Metrics("serve")
    told = ServeMetrics(metrics, ManualClock(5))
    serve_all(app, Slow(), MemoryLog(), MemoryWeights("adsim"), metrics=told, standing=standing)
    joining, after = [at for at in looked_s if at < 103.02], [at for at in looked_s if at >= 103.02]
    assert len(joining) >= 30, "a look at most polls"
    assert after[0] == pytest.approx(103.05), "ready in the poll after it has partitions"
    assert metrics.readiness() == (True, "ready")
    assert len(after) == 5, "and from then on once a second"


def test_items_that_the_catalogues_topic_refused_are_told_by_code(app: App) -> None:
    class Topic:
        refused: Mapping[str, int] = {"wrong_key": 2, "missing": 1}

        def latest(self) -> Catalogue:
            return Catalogue(app, pl.DataFrame(schema=item_contract(app).schema_))

    metrics = Metrics("serve")
    told = ServeMetrics(metrics, ManualClock(5))
    serve_all(app, EndingLog(), MemoryLog(), MemoryWeights("adsim"), metrics=told, catalogue=Topic())
    told.catalogue(Counter(Topic.refused) + Counter({"missing": 3}))
    assert {
        'ctr_serve_catalogue_refused_total{code="wrong_key"} 2.0',
        'ctr_serve_catalogue_refused_total{code="missing"} 4.0',
    } <= set(metrics.text().splitlines())


def test_a_store_that_hangs_keeps_nobody_waiting_for_the_prior(app: App) -> None:
    class Hanging(MemoryWeights):
        free = threading.Event()

        def current_version(self) -> int | None:
            self.free.wait(20)
            return super().current_version()

    store = Hanging("adsim")
    began_s = time.monotonic()
    with Refresher(app, store) as refresher:
        assert refresher.scorer.version is None
        assert time.monotonic() - began_s < 10
        store.free.set()
