"""A scorer that remembers candidates answers, to the bit, as one that reads every candidate anew."""

import json
import threading
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.features import Feature
from contracts.serving import AdResponse
from contracts.weights import Weights
from nodes import known_candidates
from nodes.catalogue import Catalogue
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.known_candidates import KnownCandidates
from nodes.publish import Publisher
from nodes.read_requests import RequestReader
from nodes.score import LightScorer

#: Few of each, so that the same candidate comes again, and again with one value changed.
CANDIDATE = st.fixed_dictionaries(
    {"item_id": st.sampled_from(["a1", "a2", "a3"]), "campaign_id": st.sampled_from(["c1", "c2"])},
    optional={
        "category": st.sampled_from([None, "k1", "k2"]),
        "format": st.sampled_from(["banner", "video", "banner", "radio"]),
        "bid": st.sampled_from([0.0, -0.0, 2.5, 2, None, -1.0, "2"]),
    },
)
GOOD = {"item_id": "a1", "campaign_id": "c1", "category": "k1", "format": "banner", "bid": 2.5}
ITEMS = pl.DataFrame([GOOD, GOOD | {"item_id": "a2", "campaign_id": "c2", "bid": None}])


#: Features that read the request as well: by what they are called in the names of tests.
ACROSS = {"none": [], "texts": [("user_id", "category")], "numbers": [("user_id", "category"), ("bid", "site")]}


def app_with(remember: int, across: str = "none", **serving: Any) -> App:
    app = load_app("adsim", {"serving": {"remember_candidates": remember, "max_candidates": 8, **serving}})
    added = [
        Feature(name=f"pair_{at}", kind="cross", columns=columns, side="item", buckets=500)
        for at, columns in enumerate(ACROSS[across])
    ]
    return replace(app, config=app.config.model_copy(update={"features": (*app.features, *added)}))


def weights_of(app: App, seed: int = 0) -> Weights:
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 1000, force=True)
    publisher.offer(light_arrays(app, seed, scale=0.3), position=1, step=1, trained_until_ms=1)
    publisher.finish()
    return store.fetch()


def asked(candidates: list[Any], indent: int | None = None) -> bytes:
    request = {
        "id": "r1",
        "event_time_ms": 1_700_000_000_000,
        "user": {"user_id": "u1", "segment": "s1", "age_band": "18-24"},
        "context": {"device": "mobile", "site": "x", "position": 2},
        "candidates": candidates,
    }
    return json.dumps(request, indent=indent).encode()


def said(answers: list[AdResponse]) -> list[AdResponse]:
    return [msgspec.structs.replace(answer, took_us=0) for answer in answers]


MESSAGE = st.builds(asked, st.lists(CANDIDATE | st.just(7), max_size=9), st.sampled_from([None, None, 1]))


@st.composite
def batches(draw: st.DrawFn) -> list[list[bytes]]:
    """Micro-batches, some messages with a byte put elsewhere, left out or overwritten."""
    made = []
    for messages in draw(st.lists(st.lists(MESSAGE, min_size=1, max_size=3), min_size=1, max_size=5)):
        for number, message in enumerate(messages):
            if draw(st.integers(0, 5)) == 0:
                at = draw(st.integers(0, len(message) - 1))
                byte = draw(st.sampled_from([b"", b"\xff", b'"', b"\\", b"}", b"]", b",", b"1", b"\x00", b" "]))
                messages[number] = message[:at] + byte + message[at + 1 :]
        made.append(messages)
    return made


#: What remembers none, few and many.
APPS = {across: (app_with(0, across), app_with(6, across), app_with(1000, across)) for across in ACROSS}
WEIGHTS_OF = {across: weights_of(plain) for across, (plain, _, _) in APPS.items()}
#: They live through all examples: what one example taught them, the next one may meet.
SCORERS = {across: [LightScorer(app, WEIGHTS_OF[across]) for app in apps] for across, apps in APPS.items()}
PLAIN_APP, SMALL_APP, LARGE_APP = APPS["none"]
WEIGHTS, PLAIN = WEIGHTS_OF["none"], SCORERS["none"][0]


@pytest.mark.parametrize("across", ACROSS)
@settings(max_examples=100, deadline=None)
@given(batches())
def test_answers_are_those_of_reading_everything_anew(across: str, made: list[list[bytes]]) -> None:
    plain, *remembering = SCORERS[across]
    for messages in made:
        expected = said(plain.answer(messages, now_ms=0))
        for scorer in remembering:
            assert said(scorer.answer(messages, now_ms=0)) == expected


def changed_items(seed: int) -> pl.DataFrame:
    return ITEMS.with_columns(campaign_id=pl.lit(f"c{seed}"), category=pl.lit(f"k{seed}"))


@pytest.mark.parametrize("across", ACROSS)
@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.lists(MESSAGE, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_what_a_candidate_leaves_out_is_what_the_catalogue_says_now(
    across: str, made: list[tuple[int, list[bytes]]]
) -> None:
    plain_app, _, large_app = APPS[across]
    weights, catalogue = WEIGHTS_OF[across], Catalogue(plain_app, ITEMS)
    plain, scorer = (LightScorer(app, weights, catalogue) for app in (plain_app, large_app))
    always = asked([{"item_id": "a1", "campaign_id": "c1"}, GOOD])
    for seed, drawn in [(1, []), (2, []), *made]:
        messages = drawn or [always]
        catalogue = catalogue.changed(changed_items(seed))
        plain, scorer = (
            LightScorer(app, weights, catalogue, before=before)
            for app, before in ((plain_app, plain), (large_app, scorer))
        )
        for _ in range(2):
            assert said(scorer.answer(messages, now_ms=0)) == said(plain.answer(messages, now_ms=0))


def test_a_candidate_that_comes_again_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = LightScorer(LARGE_APP, WEIGHTS)
    message = asked([GOOD, GOOD | {"item_id": "a2"}])
    first = said(scorer.answer([message, message], now_ms=0))
    monkeypatch.setattr(scorer.reader.candidate_side, "known", lambda *_: pytest.fail("it was read again"))
    assert said(scorer.answer([message, message], now_ms=0)) == first
    monkeypatch.undo()
    (changed,) = scorer.answer([asked([GOOD | {"campaign_id": "c77"}, GOOD | {"item_id": "a2"}])], now_ms=0)
    assert changed.scores[0].pctr != first[0].scores[0].pctr
    assert changed.scores[1].pctr == pytest.approx(first[0].scores[1].pctr, rel=1e-6)


def test_a_new_version_scores_what_is_remembered_with_its_own_weights() -> None:
    message, other = asked([GOOD]), weights_of(PLAIN_APP, 5)
    before = LightScorer(LARGE_APP, WEIGHTS)
    before.answer([message], now_ms=0)
    after = LightScorer(LARGE_APP, other, before=before)
    assert after.reader is before.reader
    assert said(after.answer([message], now_ms=0)) == said(LightScorer(PLAIN_APP, other).answer([message], now_ms=0))
    assert after.answer([message], now_ms=0)[0].scores != before.answer([message], now_ms=0)[0].scores


def test_the_columns_of_what_is_remembered_can_still_be_had() -> None:
    scorer, messages = LightScorer(LARGE_APP, WEIGHTS), [asked([GOOD, GOOD | {"bid": None}]), asked([GOOD])]
    plain = PLAIN.score(messages, now_ms=0).asked.candidates
    for _ in range(2):
        assert scorer.score(messages, now_ms=0).asked.candidates.equals(plain)


def test_features_that_read_both_sides_are_computed_from_what_the_request_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed = app_with(1000, "texts")
    scorer = LightScorer(mixed, weights_of(mixed))
    one, other = (scorer.answer([asked([GOOD] * 2).replace(b'"u1"', user)], now_ms=0)[0] for user in (b'"u1"', b'"u2"'))
    monkeypatch.setattr(scorer.reader.candidate_side, "known", lambda *_: pytest.fail("it was read again"))
    again = scorer.answer([asked([GOOD] * 2)], now_ms=0)[0]
    assert one.scores == again.scores != other.scores


def test_no_more_are_remembered_than_asked_for_and_those_in_use_stay() -> None:
    feature = Feature(name="f", kind="id", column="item_id", side="item", buckets=1000)
    known = KnownCandidates([feature], 20)
    often = [b"often-%d" % n for n in range(3)]
    for number in range(200):
        keys = [*often, b"once-%d" % number, b"x" * (5000 + number)]
        found = known.find(keys)
        assert all(found.features["f"][at] == 7 for at in range(5) if at not in found.missing)
        assert found.missing == ([0, 1, 2, 3, 4] if number == 0 else [3, 4])
        known.learn(keys, [key.decode() for key in keys], {"f": np.full(5, 7, np.uint32)})
        assert len(known) <= 20
    assert known.find([b"once-199", b"once-0"]).missing == [1]
    known.learn([b"many-%d" % n for n in range(11)], ["m"] * 11, {"f": np.zeros(11, np.uint32)})
    assert known.find(often).missing == [], "more at once than there is room for: none of them is learnt"


def test_where_nothing_comes_again_there_is_hardly_a_look() -> None:
    known = KnownCandidates([], 100)
    looks = 0
    for number in range(800):
        if known.pays():
            looks += 1
            known.find([b"%d" % number])
    assert 800 / known_candidates._SELDOM <= looks < 200
    for _ in range(200):
        known.learn([b"same"], ["same"], {})
        if known.pays():
            known.find([b"same"])
    assert all(known.pays() for _ in range(10)), "they come again"


def test_threads_that_share_a_memory_never_mix_candidates_up() -> None:
    reader = RequestReader(SMALL_APP, remember=6)
    draw = np.random.default_rng(0)
    drawn = [[GOOD | {"item_id": f"a{n}", "campaign_id": f"c{n}"} for n in draw.integers(0, 9, 3)] for _ in range(40)]
    messages = [asked(candidates) for candidates in drawn]
    expected = [RequestReader(PLAIN_APP).read([message]) for message in messages]
    wrong: list[int] = []

    def read(seed: int) -> None:
        for at in np.random.default_rng(seed).integers(0, len(messages), 150).tolist():
            found, right = reader.read([messages[at]]), expected[at]
            have, want = found.candidate_side.features or {}, right.candidate_side.features or {}
            same = all(np.array_equal(have[name], values) for name, values in want.items())
            if not want or not same or found.item_ids != right.item_ids:
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_every_shipped_app_remembers(name: str) -> None:
    app = load_app(name)
    reader = LightScorer(app, None).reader
    messages = requests(app, 4, 5, seed=3)
    reader.read(messages)
    again = reader.read(messages)
    assert again.candidate_side.later is not None, "it was looked up"
    plain = RequestReader(app).read(messages)
    for column, values in (plain.candidate_side.features or pytest.fail("they are good")).items():
        assert again.candidate_side.features is not None
        np.testing.assert_array_equal(again.candidate_side.features[column], values)
