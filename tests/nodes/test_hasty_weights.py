"""A store that hangs costs one wait, not one with every call; what it answers at last is not lost."""

import threading
import time

import pytest

from contracts.errors import FencedError, StoreError
from nodes.fakes import MemoryWeights
from nodes.hasty_weights import HastyWeights


class Hanging(MemoryWeights):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__("m")
        self.let = threading.Event()
        self.asked = 0

    def current_version(self) -> int | None:
        self.asked += 1
        self.let.wait(10)
        return super().current_version()


def test_a_store_that_hangs_is_waited_for_once() -> None:
    slow = Hanging()
    hasty = HastyWeights(slow, patience_s=0.1)
    with pytest.raises(StoreError, match=r"no answer within 0.1 s; check the server"):
        hasty.current_version()
    start = time.monotonic()
    with pytest.raises(StoreError, match="still owes the answer"):
        hasty.take_epoch()
    assert time.monotonic() - start < 0.05
    slow.let.set()
    deadline = time.monotonic() + 5
    while True:
        try:
            assert hasty.current_version() is None
            break
        except StoreError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert slow.asked == 2


def test_answers_and_errors_pass_through() -> None:
    store = MemoryWeights("m")
    hasty = HastyWeights(store, patience_s=5)
    assert (hasty.take_epoch(), hasty.take_epoch(6), hasty.epoch(), hasty.versions()) == (1, 7, 7, [])
    with pytest.raises(StoreError, match="no version of model 'm'"):
        hasty.fetch()
    with pytest.raises(StoreError, match="no version 3"):
        hasty.rollback(3, "why")
    store.fail = FencedError("taken over")
    with pytest.raises(FencedError, match="taken over"):
        hasty.current_version()
