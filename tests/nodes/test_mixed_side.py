"""Features made once a meeting of request and candidate are those of whole rows, candidate for candidate."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.app import load_app
from contracts.features import Feature
from contracts.odcs import Column
from nodes import mixed_side
from nodes.features import KINDS, kind
from nodes.mixed_side import Meetings, MixedSide
from nodes.request_side import Filled


def crossed(name: str, *columns: str, **more: Any) -> Feature:
    table = more if "dynamic" in more else {"buckets": 1_000_003} | more
    return Feature(name=name, kind="cross", columns=columns, side="item", **table)


#: By name: mixed features, and whether they are hashed while meetings are few.
TABLES: dict[str, tuple[list[Feature], bool]] = {
    "one": ([crossed("pair", "user_id", "category")], True),
    "more, in any order": (
        [crossed("pair", "category", "user_id", "campaign_id"), crossed("slot", "position", "format", "regular")], True,
    ),
    "own rows": ([crossed("pair", "user_id", "category", dynamic={"capacity": 50})], True),
    "no column of candidates": ([crossed("pair", "user_id", "nowhere")], False),
    "a number of the candidate": ([crossed("pair", "user_id", "bid")], False),
    "a number of the request": ([crossed("pair", "user_activity", "category")], False),
    "a list of the request": ([
        Feature(name="seen", kind="was_seen", columns=("history", "item_id"), side="item", output="dense")], False,
    ),
    "a default": ([crossed("pair", "user_id", "category", serve_default="none")], False),
}  # fmt: skip
ASKED = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["u1", "u2", "u1\x1fk1"]),
        "position": st.sampled_from([None, 1, 10, -3]),
        "regular": st.sampled_from([None, True, False]),
        "user_activity": st.sampled_from([None, 0.0, -0.0, 1.5, 1e300]),
        "history": st.sampled_from([None, [], ["a1"], ["a2", "a1"]]),
    }
)
SAID = st.fixed_dictionaries(
    {
        "item_id": st.sampled_from(["a1", "a2", "a3"]),
        "category": st.sampled_from([None, "", "k1", "k2", "1"]),
        "campaign_id": st.sampled_from(["c1", "k1", "é"]),
        "format": st.sampled_from(["banner", "1"]),
        "bid": st.sampled_from([None, 0.0, -0.0, 2.5]),
    }
)


ONE = {"user_id": "u1", "position": 1, "regular": True, "user_activity": 1.0, "history": ["a1"]}
OTHER = {"item_id": "a1", "category": "k1", "campaign_id": "c1", "format": "banner", "bid": 2.5}


@dataclass(frozen=True)
class Case:
    """What a reader would hold of an app whose light net sees these features alone."""

    columns: tuple[Column, ...]  #: of requests
    schema: dict[str, Any]  #: of what `ASKED` and `SAID` draw
    side: MixedSide
    whole: Filled
    hashed: bool

    def met(self, asked: list[dict[str, Any]], said: list[dict[str, Any]], request_B: np.ndarray) -> Meetings:
        values = [[row.get(column.name) for row in asked] for column in self.columns]
        tuples = [tuple(row[column.name] for column in self.side.columns) for row in said]
        return self.side.meetings(values, self.side.said(tuples), request_B)


@pytest.fixture(scope="module")
def cases() -> Iterator[dict[str, Case]]:
    @kind("was_seen")
    def was_seen(feature: Feature) -> pl.Expr:
        seen, item = feature.inputs
        return pl.col(seen).list.contains(pl.col(item)).fill_null(value=False).cast(pl.Float32)

    adsim = load_app("adsim")
    position = next(column for column in adsim.requests.columns if column.name == "position")
    regular = position.model_copy(update={"name": "regular", "physical": "boolean", "minimum": None, "maximum": None})
    requests = adsim.requests.model_copy(update={"columns": (*adsim.requests.columns, regular)})
    columns = tuple(column for column in requests.columns if column.side != "item")
    schema = {c.name: c.dtype for c in requests.columns if c.name in {*ONE, *OTHER}}
    made = {}
    for name, (features, hashed) in TABLES.items():
        config = adsim.config.model_copy(update={"features": tuple(features)})
        app = dataclasses.replace(adsim, config=config, requests=requests)
        made[name] = Case(columns, schema, MixedSide(app, columns), Filled(features), hashed)
    yield made
    KINDS.pop("was_seen")


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(ASKED, min_size=1, max_size=4),
    drawn=st.lists(st.tuples(st.integers(0, 3), SAID), max_size=25),
    few=st.sampled_from([0, 5, mixed_side._FEW]),
)
def test_what_is_spread_is_what_whole_rows_give(
    cases: dict[str, Case],
    table: str,
    asked: list[dict[str, Any]],
    drawn: list[tuple[int, dict[str, Any]]],
    few: int,
) -> None:
    case, said = cases[table], [row for _, row in drawn]
    request_B = np.sort(np.array([at % len(asked) for at, _ in drawn], np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_side, "_FEW", few)
        made, request_U, at_B = case.met(asked, said, request_B)
    rows = [asked[request] | row for request, row in zip(request_B.tolist(), said, strict=True)]
    whole = case.whole(pl.DataFrame(rows, schema=case.schema))
    np.testing.assert_array_equal(request_U[at_B], request_B)
    for column in whole:
        np.testing.assert_array_equal(made[column.name][at_B], column.to_numpy())
        assert made[column.name].dtype == column.to_numpy().dtype


@pytest.mark.parametrize("table", TABLES)
def test_crosses_of_texts_need_no_frame_while_meetings_are_few(
    cases: dict[str, Case], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, frames = cases[table], []
    monkeypatch.setattr(case.side, "_featurize", lambda frame: frames.append(frame) or case.whole(frame))
    case.met([ONE], [OTHER] * 3, np.zeros(3, np.int64))
    assert len(frames) == (0 if case.hashed else 1)


def test_a_meeting_is_made_once_however_many_candidates_say_the_same(cases: dict[str, Case]) -> None:
    said = [OTHER | {"category": f"k{n % 3}", "item_id": f"a{n}"} for n in range(300)]
    made = cases["one"].met([ONE, ONE | {"user_id": "u2"}], said, np.repeat([0, 1], 150))
    assert made.request_U.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(np.unique(made.features["pair"])) == 6


def test_of_many_values_only_what_meets_is_made(cases: dict[str, Case]) -> None:
    side = cases["one"].side
    said = side.said([(f"k{n}",) for n in range(1000)]).of(np.array([7, 900, 7]))
    made = side.meetings([["u1"] * 2] * len(cases["one"].columns), said, np.array([0, 1, 1]))
    assert (made.request_U.tolist(), made.at_B.tolist()) == ([0, 1, 1], [0, 2, 1])


def test_codes_stay_when_more_candidates_come(cases: dict[str, Case]) -> None:
    side = cases["one"].side
    first = side.said([("k1",), (None,), ("k1",)])
    more = side.said([("k2",), ("k1",), (None,)], first)
    assert (more.values, more.code_B.tolist()) == ([("k1",), (None,), ("k2",)], [0, 1, 0, 2, 0, 1])
    assert (first.values, first.code_B.tolist()) == ([("k1",), (None,)], [0, 1, 0]), "who uses it sees no change"
    apart = cases["a number of the candidate"].side
    assert apart.said([(0.0,)], apart.said([(-0.0,)])).code_B.tolist() == [0, 1], "as texts they differ"
