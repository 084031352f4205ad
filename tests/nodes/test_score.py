"""The scorer: what it answers, what it refuses, and that nothing crashes it."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.app import App, load_app
from contracts.errors import ContractError, CorruptError, SchemaMismatchError
from contracts.weights import Weights
from nodes.fake_traffic import examples, light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.featurize import featurize
from nodes.light_numpy import LightNet, sigmoid
from nodes.publish import Publisher
from nodes.score import LightScorer


def weights_of(app: App, seed: int = 0) -> Weights:
    store = MemoryWeights(app.name)
    publisher = Publisher(app, store, lambda: 1000, force=True)
    publisher.offer(light_arrays(app, seed, scale=0.3), position=1, step=1, trained_until_ms=1)
    publisher.finish()
    return store.fetch()


@pytest.fixture(scope="module")
def scorer() -> LightScorer:
    app = load_app("adsim", {"serving": {"max_request_bytes": 20_000, "max_candidates": 20}})
    return LightScorer(app, weights_of(app))


def good() -> dict[str, Any]:
    item = {"item_id": "a1", "campaign_id": "c1", "category": "k1", "format": "banner", "bid": 2.5}
    return {
        "id": "r1",
        "event_time_ms": 1_700_000_000_000,
        "tmax": 40,
        "user": {"user_id": "u1", "segment": "s1", "age_band": "18-24", "user_activity": 3.0, "history": ["a1"]},
        "context": {"device": "mobile", "site": "x", "position": 2},
        "candidates": [item | {"item_id": f"a{n}"} for n in range(3)],
    }


def test_every_candidate_gets_a_probability_from_the_named_version(scorer: LightScorer) -> None:
    (response,) = scorer.answer([json.dumps(good()).encode()], now_ms=2000)
    assert (response.id, response.model_version, response.source, response.error) == ("r1", 1, "model", None)
    assert response.schema_id == load_app("adsim").schema_id
    assert [score.item_id for score in response.scores] == ["a0", "a1", "a2"]
    assert all(0 < score.pctr < 1 for score in response.scores if score.pctr is not None)
    assert response.took_us > 0


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_a_request_scores_as_the_same_row_does_in_training(name: str) -> None:
    """The request's columns go through the training's feature code, whole rows and unsplit (law 5)."""
    app = load_app(name)
    weights = weights_of(app)
    asked = requests(app, 20, 7)
    scored = LightScorer(app, weights).score(asked, now_ms=0)
    rows: list[dict[str, Any]] = []
    for message in map(json.loads, asked):
        known = {**message["user"], **message["context"], "event_time_ms": message["event_time_ms"]}
        rows += [{**known, **candidate} for candidate in message["candidates"]]
    frame = pl.DataFrame(rows, schema={k: v for k, v in app.impressions.schema_.items() if k != "impression_id"})
    defaults = {column: f.serve_default for f in app.features if f.serve_default is not None for column in f.inputs}
    frame = frame.with_columns(pl.col(column).fill_null(value) for column, value in defaults.items())
    light = featurize(frame, [f for f in app.features if f.only is None])
    np.testing.assert_allclose(
        scored.logit, LightNet(app.layout, weights.arrays).logits(light), atol=1e-5
    )  # fmt: skip
    np.testing.assert_allclose(scored.pctr, sigmoid(scored.logit))
    assert len(set(np.round(scored.logit, 4))) > 100, "the rows differ, so the comparison says something"


def test_the_split_first_layer_gives_the_unsplit_logits(adsim: App) -> None:
    arrays = light_arrays(adsim, 3, scale=0.5)
    light = [f.name for f in adsim.features if f.only is None]
    users = [f.name for f in adsim.features if f.only is None and f.side != "item"]
    per_request = examples(adsim, 5, 1).select(users)
    per_candidate = examples(adsim, 40, 2).select(name for name in light if name not in users)
    request_of = np.sort(np.random.default_rng(0).integers(0, 5, 40))
    whole = pl.concat([per_request[request_of], per_candidate], how="horizontal")
    split = LightNet(adsim.layout, arrays, frozenset(users)).split_logits(per_request, per_candidate, request_of)
    np.testing.assert_allclose(
        split, LightNet(adsim.layout, arrays).logits(whole), atol=3e-5
    )  # of terms of some tens, in float32


@pytest.mark.parametrize("overrides", [{"light": {"wide": False}}, {"light": {"hidden": []}}, {"embedding_dim": 1}])
def test_other_shapes_of_the_light_net_score_too(overrides: dict[str, Any]) -> None:
    app = load_app("adsim", {"model": overrides})
    (response,) = LightScorer(app, weights_of(app)).answer([json.dumps(good()).encode()], now_ms=0)
    assert len(response.scores) == 3
    assert response.error is None


def test_a_mixed_micro_batch_answers_each_request_as_if_it_were_alone(scorer: LightScorer) -> None:
    app = load_app("adsim")
    messages = [*requests(app, 4, 3), b"junk", *requests(app, 4, 3, seed=1), json.dumps(good() | {"user": {}}).encode()]
    together = scorer.answer(messages, now_ms=0)
    for message, response in zip(messages, together, strict=True):
        (alone,) = scorer.answer([message], now_ms=0)
        assert (alone.id, alone.error) == (response.id, response.error)
        assert [s.item_id for s in alone.scores] == [s.item_id for s in response.scores]
        for one, other in zip(alone.scores, response.scores, strict=True):
            assert one.pctr == pytest.approx(other.pctr, rel=1e-5)


def change(path: str, value: Any) -> bytes:
    """The good request with one thing changed; `...` removes it."""
    request: Any = good()
    *way, last = path.split(".")
    inner = request
    for step in way:
        inner = inner[int(step)] if step.isdigit() else inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(request).encode()


BAD_REQUESTS: dict[str, tuple[bytes, str, str | None]] = {
    "empty": (b"", "not_json", None),
    "not UTF-8": (b'{"id": "\xff"}', "not_utf8", None),
    "truncated": (json.dumps(good()).encode()[:-20], "not_json", None),
    "nested deeply": (b"[" * 15_000, "wrong_type", None),
    "nested deeply inside": (
        json.dumps(good()).encode().replace(b'"candidates": [', b'"candidates": [' + b"[" * 10_000), "not_json", None,
    ),
    "not an object": (b"[1]", "wrong_type", None),
    "NaN": (json.dumps(good()).encode().replace(b"3.0", b"NaN"), "not_json", None),
    "1e400": (json.dumps(good()).encode().replace(b"3.0", b"1e400"), "not_finite", "r1"),
    "a lone surrogate": (json.dumps(good()).encode().replace(b"mobile", b"\\ud800"), "not_json", None),
    "too large": (json.dumps(good() | {"id": "x" * 20_000}).encode(), "too_large", None),
    "no id": (change("id", ...), "missing", None),
    "a number for an id": (change("id", 1), "wrong_type", None),
    "a long id": (change("id", "x" * 100), "too_long", "x" * 100),
    "an id beyond all bounds": (change("id", "x" * 300), "too_long", None),
    "no user": (change("user", ...), "missing", "r1"),
    "no user id": (change("user.user_id", ...), "missing", "r1"),
    "null for a user id": (change("user.user_id", None), "missing", "r1"),
    "a string for a number": (change("user.user_activity", "3"), "wrong_type", "r1"),
    "true for a number": (change("context.position", True), "wrong_type", "r1"),
    "1.0 for a whole number": (change("context.position", 1.0), "wrong_type", "r1"),
    "beyond 64 bits": (change("context.position", 2**64), "out_of_range", "r1"),
    "an unknown column": (change("context.colour", "red"), "unknown_column", "r1"),
    "an unknown part": (change("imp", []), "unknown_column", "r1"),
    "below its minimum": (change("context.position", 0), "below_minimum", "r1"),
    "no allowed value": (change("context.device", "toaster"), "not_allowed", "r1"),
    "the year 2099": (change("event_time_ms", 4_086_000_000_000), "above_maximum", "r1"),
    "no candidates": (change("candidates", []), "no_candidates", "r1"),
    "too many candidates": (change("candidates", good()["candidates"] * 7), "too_many_candidates", "r1"),
    "tmax of zero": (change("tmax", 0), "below_minimum", "r1"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_REQUESTS)
def test_a_bad_request_gets_a_code_and_its_neighbour_an_answer(scorer: LightScorer, bad: str) -> None:
    message, code, request_id = BAD_REQUESTS[bad]
    before, response, after = scorer.answer(
        [json.dumps(good()).encode(), message, json.dumps(good()).encode()], now_ms=0
    )
    assert response.error is not None
    assert (response.error.code, response.id, response.scores) == (code, request_id, [])
    assert response.error.detail
    assert len(before.scores) == len(after.scores) == 3


BAD_CANDIDATES: dict[str, tuple[Any, str, str | None]] = {
    "not an object": (5, "wrong_type", None),
    "no item": ({"campaign_id": "c", "category": "k", "format": "banner"}, "missing", None),
    "a missing column": ({"item_id": "a9", "category": "k", "format": "banner"}, "missing", "a9"),
    "an unknown column": (good()["candidates"][0] | {"item_id": "a9", "colour": 1}, "unknown_column", "a9"),
    "a wrong type": (good()["candidates"][0] | {"item_id": "a9", "bid": "2"}, "wrong_type", "a9"),
    "below its minimum": (good()["candidates"][0] | {"item_id": "a9", "bid": -1}, "below_minimum", "a9"),
    "no allowed value": (good()["candidates"][0] | {"item_id": "a9", "format": "radio"}, "not_allowed", "a9"),
    "an empty item": (good()["candidates"][0] | {"item_id": ""}, "too_short", ""),
}


@pytest.mark.parametrize("bad", BAD_CANDIDATES)
def test_a_bad_candidate_is_refused_alone(scorer: LightScorer, bad: str) -> None:
    candidate, code, item_id = BAD_CANDIDATES[bad]
    request = good()
    request["candidates"].insert(1, candidate)
    (response,) = scorer.answer([json.dumps(request).encode()], now_ms=0)
    assert response.error is None
    first, refused, *rest = response.scores
    assert (refused.item_id, refused.pctr) == (item_id, None)
    assert str(refused.refused).startswith(f"{code}: ")
    (alone,) = scorer.answer([json.dumps(good()).encode()], now_ms=0)
    assert [s.item_id for s in (first, *rest)] == ["a0", "a1", "a2"]
    np.testing.assert_allclose([s.pctr for s in (first, *rest)], [s.pctr for s in alone.scores], rtol=1e-5)


def test_a_request_whose_candidates_are_all_refused_is_answered(scorer: LightScorer) -> None:
    (response,) = scorer.answer([change("candidates", [1, {}])], now_ms=0)
    assert (response.error, [score.pctr for score in response.scores]) == (None, [None, None])


def test_without_weights_the_prior_answers_and_still_refuses(scorer: LightScorer, adsim: App) -> None:
    blank = LightScorer(adsim, None)
    fine, bad = blank.answer([json.dumps(good()).encode(), b"x"], now_ms=0)
    assert (fine.source, fine.model_version) == ("prior", None)
    assert [score.pctr for score in fine.scores] == pytest.approx([adsim.config.serving.prior_ctr] * 3)
    assert bad.error is not None


def test_an_old_version_answers_as_stale(scorer: LightScorer, adsim: App) -> None:
    age_ms = int(adsim.config.serving.max_age_s * 1000)
    message = [json.dumps(good()).encode()]
    assert scorer.answer(message, now_ms=1000 + age_ms)[0].source == "model"
    assert scorer.answer(message, now_ms=1001 + age_ms)[0].source == "stale"


def test_a_request_past_its_deadline_is_answered_as_expired_without_scores(scorer: LightScorer) -> None:
    message = json.dumps(good()).encode()
    late, in_time = scorer.answer([message, message], now_ms=1041, received_ms=[1000, 1001])
    assert (late.source, late.scores, late.model_version) == ("expired", [], None)
    assert (in_time.source, len(in_time.scores)) == ("model", 3)


def test_a_foreign_schema_is_refused_by_name(adsim: App, kuairand: App) -> None:
    with pytest.raises(SchemaMismatchError, match=f"version 1 .*{kuairand.schema_id}.*{adsim.schema_id}"):
        LightScorer(adsim, weights_of(kuairand))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda a: a.pop("bias"), "array 'bias' is missing"),
        (lambda a: a.pop("wide"), "array 'wide' is missing"),
        (lambda a: a.update(extra=np.zeros(1, np.float32)), "array 'extra' is unknown"),
        (lambda a: a.update(embedding=a["embedding"][:-1]), "array 'embedding' has the shape"),
        (lambda a: a.update(embedding=a["embedding"][:, 0]), "array 'embedding' has the shape"),
        (lambda a: a.update({"mlp.1.weight": a["mlp.1.weight"][:, 1:]}), "array 'mlp.1.weight' has the shape"),
        (lambda a: a.pop("mlp.1.weight"), "array 'mlp.1"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    adsim: App, break_it: Callable[[dict[str, np.ndarray]], object], said: str
) -> None:
    whole = weights_of(adsim)
    arrays = dict(whole.arrays)
    break_it(arrays)
    with pytest.raises(CorruptError, match=f"version 1 .*{said}"):
        LightScorer(adsim, Weights(whole.manifest, arrays))


def test_an_id_beyond_its_table_is_refused_not_read_from_the_next(scorer: LightScorer, adsim: App) -> None:
    frame = examples(adsim, 3).with_columns(age=pl.lit(16, pl.UInt32))
    with pytest.raises(ContractError, match="'age': the id 16 is beyond its 16 rows"):
        scorer.logits(frame)
    with pytest.raises(ContractError, match="'age' is not in the rows"):
        scorer.logits(frame.drop("age"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    "id", "event_time_ms", "tmax", "user", "context", "candidates", "user.user_id", "user.history",
    "user.user_activity", "context.position", "candidates.0", "candidates.1.item_id", "candidates.2.bid",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Random bytes, the good request with bytes changed, or with one value replaced."""
    how = draw(st.sampled_from(["bytes", "flip", "value"]))
    if how == "bytes":
        return draw(st.binary(max_size=60))
    if how == "value":
        request: Any = good()
        *way, last = draw(st.sampled_from(PLACES)).split(".")
        inner = request
        for step in way:
            inner = inner[int(step)] if step.isdigit() else inner[step]
        inner[int(last) if last.isdigit() else last] = draw(JSON)
        return json.dumps(request).encode()
    data = bytearray(json.dumps(good()).encode())
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(mutated(), min_size=1, max_size=4))
def test_no_bytes_crash_the_scorer_and_each_request_is_answered(scorer: LightScorer, messages: list[bytes]) -> None:
    sane = json.dumps(good()).encode()
    *answers, last = scorer.answer([*messages, sane], now_ms=0)
    assert len(answers) == len(messages)
    assert [score.item_id for score in last.scores] == ["a0", "a1", "a2"]
    for answer in answers:
        assert (answer.error is None) == bool(answer.scores)
        assert all((score.pctr is None) == (score.refused is not None) for score in answer.scores)


def test_the_scorer_loads_neither_torch_beam_pandas_nor_great_expectations() -> None:
    heavy = ["torch", "apache_beam", "pandas", "great_expectations", "sklearn", "scipy"]
    code = (
        "import sys, nodes.score, flows.score, flows.serve_kafka, nodes.weight_stores\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
