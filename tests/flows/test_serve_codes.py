"""Whatever is asked, the scorer's loop answers it with a documented code, and answers its neighbours as ever."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from contracts.app import App, load_app
from contracts.serving import CODES, AdResponse
from contracts.stores import Record
from nodes.answer_desk import AnswerDesk
from nodes.arms import Arms
from nodes.catalogue import load_catalogue
from nodes.fake_traffic import requests
from nodes.fakes import ManualClock, MemoryLog, MemoryWeights
from nodes.metrics_http import Metrics
from nodes.serve_metrics import ServeMetrics
from nodes.shed_load import LoadShedder
from tests.flows.serving import EndingLog, ask, pctr_of, publish, responses_of, serve_all, small_app
from tests.flows.test_serve_around import TRACE

ITEM = {"item_id": "a1", "campaign_id": "c", "category": "x", "format": "banner"}
GOOD: dict[str, Any] = {
    "id": "good",
    "event_time_ms": 1_700_000_000_000,
    "user": {"user_id": "u", "segment": "s"},
    "context": {"device": "mobile", "site": "s"},
    "candidates": [ITEM],
}
FOREIGN = (("kafka_replyTopic", b"foreign"),)


def line(**over: Any) -> bytes:
    return json.dumps({name: value for name, value in (GOOD | over).items() if value is not ...}).encode()


#: what is asked -> code of the answer, or how it is scored; and the id that comes back
TABLE: dict[str, tuple[bytes, str, str | None]] = {
    "an empty message": (b"", "not_json", None),
    "an empty object": (b"{}", "missing", None),
    "no candidates": (line(candidates=[]), "no_candidates", "good"),
    "10,000 candidates": (line(candidates=[ITEM] * 10_000), "too_many_candidates", "good"),
    "as many as allowed": (line(candidates=[ITEM] * 1000), "model", "good"),
    "a missing id": (line(id=...), "missing", None),
    "an id of null": (line(id=None), "missing", None),
    "an empty id": (line(id=""), "too_short", ""),
    "an id of 300 characters": (line(id="i" * 300), "too_long", None),
    "tmax 0": (line(tmax=0), "below_minimum", "good"),
    "a negative tmax": (line(tmax=-5), "below_minimum", "good"),
    "a huge tmax": (line(tmax=10**9), "above_maximum", "good"),
    "a tmax beyond 64 bits": (line(tmax=10**30), "out_of_range", "good"),
    "a tmax in quotes": (line(tmax="50"), "wrong_type", "good"),
    "a tmax with a fraction": (line(tmax=1.5), "wrong_type", "good"),
    "an unknown user": (line(user={"user_id": "nobody", "segment": "new"}), "model", "good"),
    "no user": (line(user=...), "missing", "good"),
    "a user without an id": (line(user={"segment": "s"}), "missing", "good"),
    "an extra field on top": (line(more=1), "unknown_column", "good"),
    "an extra field of the user": (line(user=GOOD["user"] | {"more": 1}), "unknown_column", "good"),
    "a value that the contract does not have": (line(context={"device": "fridge", "site": "s"}), "not_allowed", "good"),
    "5 MB": (line(user={"user_id": "u" * 5_000_000, "segment": "s"}), "too_large", None),
    "nested too deeply": (b'{"id":' + b"[" * 5000, "wrong_type", None),
    "no UTF-8": (b'{"id": "\xff"}', "not_utf8", None),
    "half a message": (line()[:40], "not_json", None),
    "a NaN": (line().replace(b"1700000000000", b"NaN"), "not_json", None),
}


@pytest.fixture(scope="module")
def app() -> App:
    return small_app()


def served(app: App, records: list[Record], **more: Any) -> tuple[list[AdResponse], dict[str, Any]]:
    store = MemoryWeights("adsim")
    publish(app, store, 1)
    asked, answered = EndingLog(clock_ms=ManualClock(5)), MemoryLog()
    asked.append(records)
    said = serve_all(app, asked, answered, store, reply_topics={"ctr.responses.v1"}, **more)
    assert asked.committed == len(records)
    return responses_of(answered), said


def said_of(response: AdResponse) -> str | None:
    return response.error.code if response.error else response.source


@pytest.mark.parametrize("together", [1, 100], ids=["alone", "in one micro-batch"])
def test_each_request_of_the_table_gets_its_code_and_a_good_one_beside_it_its_scores(
    app: App, *, together: int
) -> None:
    records = [Record(None, each) for asked, _, _ in TABLE.values() for each in (asked, line(id="beside"))]
    answers, said = served(app, records, max_requests=together)
    found = {what: (said_of(answer), answer.id) for what, answer in zip(TABLE, answers[::2], strict=True)}
    assert found == {what: (code, name) for what, (_, code, name) in TABLE.items()}
    for answer in answers[1::2]:
        assert (answer.id, answer.source, len(answer.scores)) == ("beside", "model", 1)
        assert answer.scores[0].pctr == pytest.approx(pctr_of(1))
    assert set(said["errors"]) <= set(CODES)


def test_one_id_asked_twice_is_answered_twice_under_it_with_the_same_scores(app: App) -> None:
    for together in (1, 10):
        answers, _ = served(app, [Record(None, line()), Record(None, line(id="o")), Record(None, line())],
                            max_requests=together)  # fmt: skip
        assert [answer.id for answer in answers] == ["good", "o", "good"]
        assert answers[0].scores == answers[2].scores != []


def test_a_candidate_alone_is_refused_with_its_code(app: App, tmp_path: Path) -> None:
    (tmp_path / "items.ndjson").write_text(json.dumps(ITEM | {"bid": 1.0}))
    bad = [ITEM | {"bid": -1.0}, ITEM | {"more": 1}, {"item_id": "nobody knows"}, ITEM | {"item_id": 7}, {}]
    asked = line(candidates=[*bad, {"item_id": "a1"}])
    ((answer,), _) = served(app, [Record(None, asked)], catalogue=load_catalogue(app, tmp_path / "items.ndjson"))
    codes = [score.refused.partition(":")[0] if score.refused else None for score in answer.scores]
    assert codes == ["below_minimum", "unknown_column", "missing", "wrong_type", "missing", None]
    assert {code for code in codes if code} <= set(CODES)
    assert answer.scores[5].pctr == pytest.approx(pctr_of(1))


def test_a_foreign_topic_and_a_deadline_have_their_codes_too(app: App) -> None:
    records = [Record(None, line(id="f"), FOREIGN), Record(None, line(id="d", tmax=3), timestamp_ms=1),
               Record(None, line())]  # fmt: skip
    answers, _ = served(app, records)
    found = {answer.id: (said_of(answer), len(answer.scores)) for answer in answers}
    assert found == {"f": ("reply_topic_refused", 0), "d": ("expired", 0), "good": ("model", 1)}


class Costly(LoadShedder):
    """Every request costs 10 ms."""

    def cost_ms(self, size: int) -> float:
        return 10.0 * (size // len(line(id="q0")))


class Order(MemoryLog):
    """Notes what was written together."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        super().__init__()

    def append(self, records: Any) -> None:
        self.batches += [len(records)] if records else []
        super().append(records)


@pytest.mark.parametrize("shed", [True, False])
def test_what_cannot_be_scored_in_time_is_answered_first_and_unscored(
    monkeypatch: pytest.MonkeyPatch, *, shed: bool
) -> None:
    monkeypatch.setattr("nodes.answer_desk.LoadShedder", Costly)
    app = load_app("adsim", {"model": {"embedding_dim": 1, "light": {"hidden": [2]}}, "serving": {"shed": shed}})
    clock, metrics = ManualClock(100), Metrics("serve")
    asked, answered = EndingLog(), Order()
    tmax = [30, 5, 60, 8, 45]  # ms, of which all are left; three cost 30
    asked.append([Record(None, line(id=f"q{at}", tmax=each), timestamp_ms=100) for at, each in enumerate(tmax)])
    said = serve_all(app, asked, answered, MemoryWeights("adsim"), clock_ms=clock, metrics=ServeMetrics(metrics, clock))
    by_id = {answer.id: said_of(answer) for answer in responses_of(answered)}
    if not shed:
        assert (said["errors"], answered.batches) == ({}, [5])
        return
    assert by_id == {"q0": "prior", "q1": "overloaded", "q2": "prior", "q3": "overloaded", "q4": "prior"}
    assert answered.batches == [2, 3], "those given up are answered at once"
    assert 'ctr_serve_errors_total{code="overloaded"} 2.0' in metrics.text()


class Ticking:
    """10 ms pass from look to look."""

    at_ms = 0

    def __call__(self) -> int:
        self.at_ms += 10
        return self.at_ms


def test_a_deadline_that_passes_while_the_answers_before_it_leave_is_kept_too(app: App) -> None:
    clock, answered = Ticking(), MemoryLog()
    records = [Record(None, line(id=f"q{at}", tmax=44), timestamp_ms=1) for at in range(3)]
    with Arms(app, {"adsim": MemoryWeights("adsim")}) as arms:
        told = ServeMetrics(Metrics("serve"), clock)
        desk = AnswerDesk(app, answered, arms, reply_topics=None, clock_ms=clock, told=told)
        made = desk.answer_until_safe(records, threading.Event())
    assert made is not None
    assert [response.source for response in made.responses] == ["prior", "expired", "expired"]
    assert responses_of(answered) == made.responses
    assert [record.timestamp_ms for record in answered.records] == [40, 50, 60], "the answer says when it left"


def test_a_slow_request_is_told_in_one_structured_line_a_second(app: App, caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = ManualClock(5_000), Metrics("serve")
    asked, answered = EndingLog(), MemoryLog()
    made = [json.dumps(json.loads(each) | {"tmax": 60_000}).encode() for each in requests(app, 3, 4)]
    stamps = [4_000, 4_990, 1_000]
    asked.append([Record(None, each, (("traceparent", TRACE),), at) for each, at in zip(made, stamps, strict=True)])
    asked.append([Record(None, ask(app, 1)[0])])
    with caplog.at_level(logging.WARNING, "nodes.slow_requests"):
        serve_all(app, asked, answered, MemoryWeights("adsim"), clock_ms=clock, metrics=ServeMetrics(metrics, clock))
    (told,) = [each.getMessage() for each in caplog.records if each.name == "nodes.slow_requests"]
    word, _, rest = told.partition("{")
    found = json.loads("{" + rest)
    assert word == "slow request "
    assert found.pop("read_ms") > 0
    assert found.pop("score_ms") > 0
    assert found == {"id": "request-0", "took_ms": 1000, "queue_ms": 1000, "candidates": 4, "model": "adsim",
                     "source": "prior", "traceparent": TRACE.decode(), "unsaid": 0}  # fmt: skip
    assert "ctr_serve_slow_total 2.0" in metrics.text(), "the third is counted, and told with the next line"
