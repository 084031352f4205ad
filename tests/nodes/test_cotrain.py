"""Minibatches are cut by row count alone, and redelivered rows are refused, however the log was cut."""

import itertools
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from contracts.app import App
from contracts.errors import ContractError
from contracts.segments import FeatureBatch
from nodes.cotrain import CoTrainer, Minibatches
from nodes.trained_ids import SCHEMA, TrainedIds
from tests.random_examples import dynamic_app, random_examples, small_app

HORIZON_MS = 10
LOGS = st.lists(st.tuples(st.integers(0, 6), st.integers(-15, 8)), max_size=40)
CUTS = st.lists(st.integers(1, 39), max_size=5)


def frame_of(steps) -> pl.DataFrame:
    """Ids and times of a log that mostly grows, with rows that come again late."""
    time, rows = 0, []
    for example_id, step in steps:
        rows.append((example_id, max(0, time + step)))
        time = max(time, time + step)
    return pl.DataFrame(rows, schema=["example_id", "event_time_ms"], orient="row").with_columns(
        _row=pl.int_range(pl.len())
    ).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())  # fmt: skip


def oracle(frame: pl.DataFrame) -> list[int]:
    """Row by row: too old, or its id admitted within the horizon, means refused."""
    newest, admitted, rows = None, {}, []
    for example_id, time, row in frame.iter_rows():
        newest = time if newest is None else max(newest, time)
        times = admitted.setdefault(example_id, [])
        if time >= newest - HORIZON_MS and not any(abs(time - t) <= HORIZON_MS for t in times):
            times.append(time)
            rows.append(row)
    return rows


def pieces(frame: pl.DataFrame, cuts: list[int]) -> list[pl.DataFrame]:
    edges = [0, *sorted(cut for cut in set(cuts) if cut < frame.height), frame.height]
    return [frame.slice(a, b - a) for a, b in itertools.pairwise(edges)]


@given(LOGS, CUTS)
@settings(max_examples=150, deadline=None)
def test_what_is_refused_hangs_on_the_rows_and_not_on_the_cuts(steps, cuts: list[int]) -> None:
    frame, ids = frame_of(steps), TrainedIds(HORIZON_MS)
    found = [row for piece in pieces(frame, cuts) for row in ids.admit(piece)["_row"].to_list()]
    assert found == oracle(frame)


@given(LOGS, st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_reading_again_from_a_checkpoint_refuses_the_same_rows(steps, stop: int) -> None:
    frame, ids = frame_of(steps), TrainedIds(HORIZON_MS)
    admitted = pl.concat(ids.admit(piece) for piece in pieces(frame, [stop]))  # read ahead of the checkpoint at `stop`
    before = admitted.filter(pl.col("_row") < stop)
    position = 0 if before.is_empty() else int(before["_row"][-1]) + 1
    again = TrainedIds(HORIZON_MS)
    newest = None if before.is_empty() else int(before["_newest_ms"][-1])
    if newest is not None:
        ids.learnt(newest)
    again.restore(ids.table(position), newest)
    rest = again.admit(frame.filter(pl.col("_row") >= position))
    assert before["_row"].to_list() + rest["_row"].to_list() == oracle(frame)


def test_the_ids_held_are_bounded_by_the_horizon() -> None:
    ids = TrainedIds(HORIZON_MS)
    for start in range(0, 10_000, 100):
        rows = pl.DataFrame({"example_id": range(start, start + 100), "event_time_ms": range(start, start + 100)})
        ids.admit(rows.with_columns(_row=pl.col("event_time_ms")).cast(SCHEMA))
        ids.learnt(start + 99)
        assert ids.table(start + 100).height <= 2 * HORIZON_MS + 1
        assert ids._table.height <= 100 + 2 * HORIZON_MS + 1
    assert ids.table(10_000).height == 2 * HORIZON_MS + 1


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


@pytest.fixture(scope="module")
def rows(app: App) -> pl.DataFrame:
    return random_examples(app, 500)


@given(st.lists(st.integers(1, 499), max_size=8))
@settings(max_examples=20, deadline=None)
def test_minibatches_have_the_same_rows_however_segments_are_cut(app: App, rows: pl.DataFrame, cuts: list[int]) -> None:
    minibatches, first, found = Minibatches(app, TrainedIds(10**9)), 0, []
    for piece in pieces(rows, cuts):
        minibatches.push(FeatureBatch(piece, first, app.schema_id))
        first += piece.height
        found += [(m.frame["impression_id"].to_list(), m.next_row, m.batch.rows) for m in minibatches.cut()]
    ids = rows["impression_id"].to_list()
    assert found == [(ids[s : s + 64], s + 64, 64) for s in range(0, 448, 64)]
    assert minibatches.pending == 500 - 448


def test_drawing_may_stop_and_go_on(app: App, rows: pl.DataFrame) -> None:
    minibatches = Minibatches(app, TrainedIds(10**9))
    minibatches.push(FeatureBatch(rows, 0, app.schema_id))
    first = next(minibatches.cut())
    assert (first.next_row, minibatches.pending) == (64, 436)
    assert [m.next_row for m in minibatches.cut()] == list(range(128, 449, 64))


def test_a_gap_in_the_log_is_refused(app: App, rows: pl.DataFrame, tmp_path: Path) -> None:
    minibatches = Minibatches(app, TrainedIds(10**9))
    with pytest.raises(ContractError, match="row 100 came where row 0 was due"):
        minibatches.push(FeatureBatch(rows.slice(100), 100, app.schema_id))


class _Taken(TorchDispatchMode):
    """Counts the bytes of memory that torch takes anew while the `with` block runs."""

    def __init__(self) -> None:
        super().__init__()
        self.size_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        held = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in held:
            self.size_bytes += made.nbytes
        return made


@pytest.mark.parametrize("made", [small_app, dynamic_app])
def test_what_a_checkpoint_holds_is_copied_once_and_learning_does_not_move_it(made, tmp_path: Path) -> None:
    app = made(tmp_path / "app")
    trainer = CoTrainer(app)
    minibatches = trainer.minibatches()
    minibatches.push(FeatureBatch(random_examples(app, 640), 0, app.schema_id))
    *learnt, last = minibatches.cut()
    for minibatch in learnt:
        trainer.learn(minibatch)
    with _Taken() as taken:
        tensors = trainer.tensors()
    assert taken.size_bytes <= sum(tensor.nbytes for tensor in tensors.values())
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    trainer.learn(last)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in tensors.items())
    moved = {name.partition(".")[0] for name, now in trainer.tensors().items() if not torch.equal(now, kept[name])}
    assert moved == {"trainer", "progressive", "linear"}
