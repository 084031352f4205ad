"""The scorer's loop over an event log: every request answered, from one version, before it is committed."""

import threading
import time
from typing import Any

import pytest

from contracts.app import App
from contracts.errors import StoreError
from contracts.stores import Record
from flows.serve import serve
from nodes.answer_desk import answer
from nodes.fakes import ManualClock, MemoryLog, MemoryWeights
from nodes.refresh import Refresher
from nodes.score import LightScorer
from tests.flows.serving import EndingLog, ask, pctr_of, publish, responses_of, serve_all, small_app


@pytest.fixture(scope="module")
def app() -> App:
    return small_app()


def test_every_request_is_answered_and_committed(app: App) -> None:
    store = MemoryWeights("adsim")
    publish(app, store, 1)
    asked, answered = EndingLog([*ask(app, 20), b"junk"], clock_ms=ManualClock(5)), MemoryLog()
    said = serve_all(app, asked, answered, store, max_requests=6)
    assert (said["requests"], said["by_source"], said["errors"], asked.committed) == (
        21,
        {"model": 20},
        {"not_json": 1},
        21,
    )
    assert [response.id for response in responses_of(answered)] == [f"request-{n}" for n in range(20)] + [None]


def test_a_crash_between_answer_and_commit_repeats_answers_with_the_same_ids(app: App) -> None:
    store = MemoryWeights("adsim")
    publish(app, store, 1)
    asked, answered = EndingLog(ask(app, 5), clock_ms=ManualClock(5)), MemoryLog()
    asked.fail_commit = StoreError("broker gone")
    with pytest.raises(StoreError, match="broker gone"):
        serve_all(app, asked, answered, store)
    assert (len(answered.records), asked.committed) == (5, 0)
    asked.restart()
    serve_all(app, asked, answered, store)
    ids = [response.id for response in responses_of(answered)]
    assert ids == [f"request-{n}" for n in range(5)] * 2
    assert asked.committed == 5


def test_a_crash_before_the_answers_are_safe_loses_none(app: App) -> None:
    store = MemoryWeights("adsim")
    publish(app, store, 1)
    asked, answered = EndingLog(ask(app, 5), clock_ms=ManualClock(5)), MemoryLog()
    answered.fail_append = StoreError("disk full")
    with pytest.raises(StoreError):
        serve_all(app, asked, answered, store)
    assert asked.committed == 0
    asked.restart()
    serve_all(app, asked, answered, store)
    assert len(answered.records) == 5


def test_each_response_comes_from_one_version_while_versions_are_swapped_under_load(app: App) -> None:
    store = MemoryWeights("adsim")
    publish(app, store, 1)
    lines, stop = ask(app, 8), threading.Event()
    asked, answered = MemoryLog(clock_ms=ManualClock(5)), MemoryLog()
    said: dict[str, Any] = {}
    worker = threading.Thread(
        target=lambda: said.update(
            serve(app, asked, answered, store, stop=stop, clock_ms=ManualClock(5), refresh_s=0.001)
        )
    )
    worker.start()
    for number in range(2, 40):
        asked.append([Record(None, line) for line in lines])
        publish(app, store, number)
        time.sleep(0.003)
    deadline = time.monotonic() + 20
    while (len(answered.records) < len(asked.records) or said == {}) and time.monotonic() < deadline:
        time.sleep(0.01)
        if len(answered.records) == len(asked.records):
            stop.set()
    stop.set()
    worker.join()
    answers = responses_of(answered)
    assert len(answers) == 38 * 8
    assert said["swaps"] > 3
    for response in answers:
        assert response.model_version is not None
        expected = pctr_of(response.model_version)
        assert all(score.pctr == pytest.approx(expected) for score in response.scores)
    versions = [response.model_version or 0 for response in answers]
    assert versions == sorted(versions), "versions only grow"


def test_without_any_version_the_prior_answers(app: App) -> None:
    asked, answered = EndingLog(ask(app, 2), clock_ms=ManualClock(5)), MemoryLog()
    said = serve_all(app, asked, answered, MemoryWeights("adsim"))
    assert (said["by_source"], said["model_version"]) == ({"prior": 2}, None)


def test_while_the_store_is_down_the_prior_or_the_last_version_answers(app: App) -> None:
    store = MemoryWeights("adsim")
    store.fail = StoreError("redis://h: cannot be reached")
    refresher = Refresher(app, store)
    assert not refresher.look()
    assert refresher.scorer.version is None
    store.fail = None
    publish(app, store, 1)
    assert refresher.look()
    store.fail = StoreError("redis://h: cannot be reached")
    assert not refresher.look()
    assert (refresher.scorer.version, refresher.refused["StoreError"]) == (1, 2)
    assert refresher.last_refusal == "redis://h: cannot be reached"


def test_a_version_that_has_grown_old_answers_as_stale(app: App) -> None:
    store, clock = MemoryWeights("adsim"), ManualClock(0)
    publish(app, store, 1, clock)
    clock.advance(int(app.config.serving.max_age_s * 1000) + 1)
    asked, answered = EndingLog(ask(app, 1), clock_ms=clock), MemoryLog()
    assert serve_all(app, asked, answered, store, clock_ms=clock)["by_source"] == {"stale": 1}


def test_a_corrupt_or_foreign_version_is_refused_by_name_and_the_old_one_stays(app: App, kuairand: App) -> None:
    store = MemoryWeights("adsim")
    publish(app, store, 1)
    refresher = Refresher(app, store)
    assert refresher.look()
    publish(app, store, 2)
    broken = store.held[2].chunks
    broken[0] = bytes([broken[0][0] ^ 1]) + broken[0][1:]
    assert not refresher.look()
    assert "version 2 of model 'adsim'" in str(refresher.last_refusal)
    assert not refresher.look()
    assert refresher.refused == {"CorruptError": 1}, "not fetched again at once"
    publish(kuairand, store, 3)
    assert not refresher.look()
    assert kuairand.schema_id in str(refresher.last_refusal)
    assert refresher.scorer.version == 1
    publish(app, store, 4)
    assert refresher.look()
    assert (refresher.scorer.version, refresher.swaps) == (4, 2)


def test_a_refused_version_is_tried_again_after_a_while(app: App) -> None:
    store = MemoryWeights("adsim")
    publish(app, store, 1)
    whole = store.held[1].chunks[0]
    store.held[1].chunks[0] = whole[:-1]
    refresher = Refresher(app, store)
    assert not refresher.look()
    store.held[1].chunks[0] = whole
    assert [refresher.look() for _ in range(30)].count(True) == 1


def test_after_a_rollback_the_older_version_answers(app: App) -> None:
    store = MemoryWeights("adsim")
    refresher = Refresher(app, store)
    for number in (1, 2):
        publish(app, store, number)
        assert refresher.look()
    store.rollback(1, "test")
    assert refresher.look()
    assert refresher.scorer.version == 1


class SteppingClock:
    """Gives the next of its times at each call."""

    def __init__(self, *times: int) -> None:
        self._times = list(times)

    def __call__(self) -> int:
        return self._times.pop(0) if len(self._times) > 1 else self._times[0]


@pytest.mark.parametrize(
    ("times", "source"),
    [((1_000, 2_000), "prior"), ((2_001, 2_001), "expired"), ((1_999, 2_001), "expired")],
    ids=["in time", "late on arrival", "late while it was scored"],
)
def test_nothing_leaves_after_its_deadline_unless_it_says_so(app: App, times: tuple[int, int], source: str) -> None:
    record = Record(None, ask(app, 1)[0], timestamp_ms=1_000)
    (response,) = answer(LightScorer(app, None), [record], SteppingClock(*times)).responses
    assert (response.id, response.source, bool(response.scores)) == ("request-0", source, source != "expired")


def test_a_record_without_a_timestamp_has_no_deadline(app: App) -> None:
    (response,) = answer(LightScorer(app, None), [Record(None, ask(app, 1)[0])], ManualClock(10**13)).responses
    assert response.source == "prior"
