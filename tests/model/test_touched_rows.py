"""Which rows of the light tables moved: told once, never too few."""

from pathlib import Path

import numpy as np
import pytest

from contracts.app import App
from model.export import light_arrays, light_views, take_touched
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app


@pytest.fixture(params=["shared", "separate"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> App:
    return small_app(tmp_path / "app", {"model": {"sharing": request.param}})


def rows_that_differ(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[int]:
    moved = (before["embedding"] != after["embedding"]).any(axis=1) | (before["wide"] != after["wide"])
    return set(np.flatnonzero(moved).tolist())


def test_each_row_that_moved_is_told_once_and_none_is_left_out(app: App) -> None:
    trainer, frame = Trainer(app), random_examples(app, 256)
    before, first = light_arrays(trainer), take_touched(trainer)
    assert (first.since_step, first.rows.tolist()) == (0, list(range(app.layout.light_rows))), "at first nobody knows"
    for start in (0, 64, 128):
        trainer.learn(frame[start : start + 64])
        if start == 64:
            continue
        after, told = light_arrays(trainer), take_touched(trainer)
        assert told.rows.dtype == np.int64
        assert (np.diff(told.rows) > 0).all()
        assert rows_that_differ(before, after) <= set(told.rows.tolist()) < set(range(app.layout.light_rows))
        assert told.since_step == (0 if not start else 1)
        before = after
    assert take_touched(trainer).rows.size == 0
    assert take_touched(trainer).since_step == trainer.step == 3


def test_after_a_restore_every_row_may_have_moved(app: App) -> None:
    trainer, frame = Trainer(app), random_examples(app, 128)
    trainer.learn(frame[:64])
    state, meta = trainer.state(), trainer.meta()
    trainer.learn(frame[64:])
    take_touched(trainer)
    trainer.restore(state, meta)
    assert take_touched(trainer).rows.size == app.layout.light_rows


def test_views_are_the_arrays_without_a_copy(app: App) -> None:
    trainer = Trainer(app)
    views, arrays = light_views(trainer), light_arrays(trainer)
    assert {name: array.tobytes() for name, array in views.items()} == {n: a.tobytes() for n, a in arrays.items()}
    slab = trainer.nets.light_table.slab.numpy()
    assert [np.shares_memory(slab, some["embedding"]) for some in (views, arrays)] == [True, False]
