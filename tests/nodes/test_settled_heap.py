"""What was there at the start is passed over by the garbage collector; what comes later is collected as ever."""

import gc
import weakref
from typing import Any

from contracts.app import App
from nodes.fakes import ManualClock, MemoryLog, MemoryWeights
from nodes.settled_heap import settled_heap
from tests.flows.serving import EndingLog, ask, publish, serve_all, small_app


class Knot:
    """Only the garbage collector can let go of it."""

    def __init__(self) -> None:
        self.itself = self


def test_old_objects_are_passed_over_and_new_garbage_is_not() -> None:
    before, old = gc.get_freeze_count(), Knot()
    with settled_heap():
        assert gc.get_freeze_count() > before + 1000
        assert not any(each is old for each in gc.get_objects())
        knot = weakref.ref(Knot())
        gc.collect()
        assert knot() is None
    assert gc.get_freeze_count() == 0
    assert any(each is old for each in gc.get_objects())


def test_a_scorer_answers_with_its_catalogue_and_weights_out_of_the_collectors_sight() -> None:
    app: App = small_app()
    store, frozen = MemoryWeights("adsim"), []

    class Looking(EndingLog):
        def poll(self, max_wait_ms: int, max_records: int) -> Any:
            frozen.append(gc.get_freeze_count())
            return super().poll(max_wait_ms, max_records)

    publish(app, store, 1)
    serve_all(app, Looking(ask(app, 3), clock_ms=ManualClock(5)), MemoryLog(), store)
    assert min(frozen) > 1000
    assert gc.get_freeze_count() == 0
