"""The bench of the scorer on Kafka: its answers prove their version, and its load does not wait for answers."""

import math

import msgspec
import numpy as np
import pytest

from contracts.app import App
from contracts.serving import AdResponse, Score
from contracts.stores import Record
from contracts.weights import Weights
from deploy.benches.serve_kafka import CANDIDATES, TMAX_MS, checked, proven_pctr, proving_arrays
from deploy.live.open_loop import load
from nodes.fake_traffic import requests
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.score import LightScorer


def version_of(app: App, number: int) -> Weights:
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 0, force=True)
    publisher.offer(proving_arrays(app, number), position=1, step=1, trained_until_ms=1)
    publisher.finish()
    return store.fetch()


def test_every_score_of_a_version_is_what_its_number_says_and_no_other_one_is_near(adsim: App) -> None:
    for number in (1, 2, 37, 64):
        scorer = LightScorer(adsim, version_of(adsim, number))
        for response in scorer.answer(requests(adsim, 3, 20), now_ms=0):
            assert [score.pctr for score in response.scores] == [
                pytest.approx(proven_pctr(adsim, number), abs=1e-5)
            ] * 20
    chances = sorted(proven_pctr(adsim, number) for number in range(64))
    assert np.diff(chances).min() > 1e-3


def response(app: App, version: int, pctr: float, *, size: int = CANDIDATES, at_ms: int = 0) -> tuple[Record, int]:
    scores = [Score(str(n), pctr) for n in range(size)]
    made = AdResponse(id="r", model_version=version, source="model", scores=scores)
    return Record(None, msgspec.json.encode(made), timestamp_ms=at_ms), 0


def test_a_score_of_another_version_a_missing_one_and_a_late_answer_are_seen(adsim: App) -> None:
    two, three = proven_pctr(adsim, 2), proven_pctr(adsim, 3)
    good, other, short = response(adsim, 2, two), response(adsim, 2, three), response(adsim, 2, two, size=199)
    mixed = AdResponse(id="r", model_version=2, source="model",
                       scores=[Score("a", two)] * 199 + [Score("b", three)])  # fmt: skip
    late, unscored = response(adsim, 2, two, at_ms=TMAX_MS + 1), AdResponse(id="r", source="expired")
    more = [(Record(None, msgspec.json.encode(each), timestamp_ms=10**6), 0) for each in (mixed, unscored)]
    said, versions = checked(adsim, [good, other, short, late, *more])
    assert (said, versions) == ({"model": 5, "expired": 1, "mixed": 3, "late_unmarked": 2}, {2})


class Slow:
    """A client whose service stalls once: answers all that came meanwhile at the end of the stall."""

    def __init__(self, stall_s: float) -> None:
        import queue

        self.asked: queue.Queue[bytes] = queue.Queue()
        self.stall_s, self.stalled = stall_s, False

    def send(self, lines, *, ids, at_ms, safe) -> None:
        if ids[0] != b"x-9":  # the last one gets no answer
            self.asked.put(ids[0])

    def answers(self, wait_s):
        import queue
        import time

        try:
            first = self.asked.get(timeout=wait_s)
        except queue.Empty:
            return
        if not self.stalled:
            self.stalled = True
            time.sleep(self.stall_s)
        yield first, Record(None, b"")
        yield first, Record(None, b"again")


def test_a_stall_counts_for_all_that_were_due_meanwhile() -> None:
    found = load(Slow(0.2), [b"q"] * 10, 100, name="x", patience_s=0.3)  # type: ignore[arg-type]
    assert (found.unanswered, found.latency_ms.size, len(found.answers)) == (1, 9, 9)
    assert (found.latency_ms > 100).all(), "closed-loop load would have seen one slow answer"
    assert np.all(np.diff(found.latency_ms) < 0), "each was due 10 ms later than the one before"
    assert all(record.value == b"" for record, _ in found.answers), "the first answer counts"
    assert math.isfinite(found.behind_ms.max())
