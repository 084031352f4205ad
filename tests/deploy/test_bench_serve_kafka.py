"""The bench of the scorer on Kafka: its answers prove their version, and its load does not wait for answers."""

import math
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from contracts.app import App, load_app
from contracts.serving import AdResponse, Score
from contracts.stores import Record
from contracts.weights import Weights
from deploy.benches.proving_weights import Replay, checked, level_of, touched
from deploy.benches.serve_kafka import CANDIDATES, TMAX_MS, Swapper, _prepare
from deploy.live.open_loop import load
from nodes.catalogue import Catalogue, load_catalogue
from nodes.fakes import MemoryWeights
from nodes.refresh import Refresher
from nodes.score import LightScorer

REQUESTS, VERSIONS = 8, 5


class World(NamedTuple):
    app: App
    rows: np.ndarray
    lines: list[bytes]
    catalogue: Catalogue
    store: MemoryWeights
    versions: dict[int, Weights]
    answers: dict[int, list[AdResponse]]  #: of the scorer that went from version to version


def swapped(app: App, rows: np.ndarray, lines: list[bytes], catalogue: Catalogue) -> World:
    """Versions published one after another, each swapped in by a scorer that has the one before."""
    store = MemoryWeights(app.name)
    swapper, refresher = Swapper(app, store, rows), Refresher(app, store, catalogue=catalogue)
    versions, answers = {}, {}
    for number in range(1, VERSIONS + 1):
        swapper.publish()
        assert refresher.look()
        versions[number] = store.fetch(number)
        answers[number] = refresher.scorer.answer(lines, now_ms=0)
    return World(app, rows, lines, catalogue, store, versions, answers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("bench")
    app = load_app("adsim")
    rows = _prepare(app, folder, REQUESTS)
    lines = (folder / "requests.ndjson").read_bytes().split(b"\n")
    return swapped(app, rows, lines, load_catalogue(app, folder / "catalogue.parquet"))


def found(world: World, answers: list[AdResponse], *, at_ms: int = 0) -> dict[str, int]:
    records = [(Record(None, msgspec.json.encode(each), timestamp_ms=at_ms), 0) for each in answers]
    return dict(checked(Replay(world.app, world.rows), records, candidates=CANDIDATES, tmax_ms=TMAX_MS)[0])


def test_every_score_of_every_version_is_what_the_replay_says(world: World) -> None:
    for answers in (world.answers, dict(reversed(world.answers.items()))):
        every = [answer for some in answers.values() for answer in some]
        assert found(world, every) == {"model": REQUESTS * VERSIONS, "mixed": 0, "late_unmarked": 0}
    scores = np.array([[score.pctr for score in answer.scores] for answer in world.answers[VERSIONS]])
    assert np.ptp(scores) > 0.01, "candidates differ, so that a score of another one would be seen"


def test_versions_travel_as_a_live_trainer_publishes_them(world: World) -> None:
    kinds = [world.versions[number].manifest.kind for number in range(1, VERSIONS + 1)]
    assert kinds == ["full"] + ["delta"] * (VERSIONS - 1)
    for number in range(2, VERSIONS + 1):
        rows = touched(world.rows, number)
        shapes = {blob.name: blob.shape for blob in world.versions[number].manifest.blobs}
        assert shapes["rows"] <= rows.shape
        assert 0.001 < rows.size / world.app.layout.light_rows < 0.02
        assert np.isin(world.rows, rows).any(axis=2).mean() > 0.99, "nearly every candidate reads a row that moved"


def test_whole_versions_say_the_same(world: World) -> None:
    whole = swapped(load_app("adsim", {"publish": {"deltas": False}}), world.rows, world.lines, world.catalogue)
    assert {weights.manifest.kind for weights in whole.versions.values()} == {"full"}
    for number, answers in whole.answers.items():
        for one, other in zip(answers, world.answers[number], strict=True):
            assert one.scores == other.scores


@pytest.mark.parametrize(
    "stale",
    [("embedding", "wide"), ("embedding",), ("wide",), ("bias",), ("mlp.0.weight",), ("bias", "mlp.0.weight")],
    ids="-".join,
)
@pytest.mark.parametrize("number", range(2, VERSIONS + 1))
def test_a_version_with_anything_of_the_one_before_is_seen_in_every_answer(
    world: World, number: int, stale: tuple[str, ...]
) -> None:
    newer, older = world.versions[number], world.versions[number - 1]
    mixed = Weights(newer.manifest, newer.arrays | {name: older.arrays[name] for name in stale})
    answers = LightScorer(world.app, mixed, world.catalogue).answer(world.lines, now_ms=0)
    assert found(world, answers)["mixed"] == REQUESTS


def test_a_single_row_of_the_version_before_is_seen_in_each_candidate_that_reads_it(world: World) -> None:
    newer, replay = world.versions[VERSIONS], Replay(world.app, world.rows)
    for row in np.intersect1d(touched(world.rows, VERSIONS), world.rows)[::40]:
        arrays = {name: newer.arrays[name].copy() for name in ("embedding", "wide")}
        for name, array in arrays.items():
            array[row] = world.versions[VERSIONS - 1].arrays[name][row]
        if (arrays["wide"][row] == newer.arrays["wide"][row]).all():  # the same level by chance
            continue
        scorer = LightScorer(world.app, Weights(newer.manifest, newer.arrays | arrays), world.catalogue)
        for request, answer in enumerate(scorer.answer(world.lines, now_ms=0)):
            off = np.abs(np.array([score.pctr for score in answer.scores]) - replay.pctr(VERSIONS, request)) > 1e-4
            np.testing.assert_array_equal(off, (world.rows[request] == row).any(axis=1))


def test_item_vectors_of_the_version_before_are_seen(world: World) -> None:
    scorers = [LightScorer(world.app, world.versions[number], world.catalogue) for number in (2, 3)]
    scorers[1].items = scorers[0].items
    assert found(world, scorers[1].answer(world.lines, now_ms=0))["mixed"] == REQUESTS


def test_levels_of_neighbours_are_far_apart() -> None:
    levels = np.array([level_of(version) for version in range(1, 200)])
    assert np.abs(np.diff(levels)).min() >= 27 / 64
    assert np.unique(levels).size == 64
    np.testing.assert_array_equal(levels, levels.astype(np.float16))


def test_a_score_of_another_version_a_missing_one_and_a_late_answer_are_seen(world: World) -> None:
    good, other = world.answers[2][0], world.answers[3][0]
    scores = good.scores
    wrong = [
        msgspec.structs.replace(good, scores=other.scores),
        msgspec.structs.replace(good, scores=scores[:-1]),
        msgspec.structs.replace(good, scores=[*scores[:-1], other.scores[-1]]),
        msgspec.structs.replace(good, scores=[*scores[:-1], Score(scores[-1].item_id, None, "refused: x")]),
        msgspec.structs.replace(good, model_version=3),
        msgspec.structs.replace(good, id=world.answers[2][1].id),
    ]
    assert found(world, [good, *wrong]) == {"model": 7, "mixed": 6, "late_unmarked": 0}
    unscored = AdResponse(id="r0", source="expired")
    assert found(world, [good, unscored], at_ms=TMAX_MS) == {"model": 1, "expired": 1, "mixed": 0, "late_unmarked": 0}
    assert found(world, [good, unscored], at_ms=TMAX_MS + 1)["late_unmarked"] == 1


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
    found = load(Slow(0.2), [b"q"] * 10, 100, name="x", patience_s=0.3)
    assert (found.unanswered, found.latency_ms.size, len(found.answers)) == (1, 9, 9)
    assert (found.latency_ms > 100).all(), "closed-loop load would have seen one slow answer"
    assert np.all(np.diff(found.latency_ms) < 0), "each was due 10 ms later than the one before"
    assert all(record.value == b"" for record, _ in found.answers), "the first answer counts"
    assert math.isfinite(found.behind_ms.max())
