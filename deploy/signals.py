"""What SIGTERM and Ctrl-C do to a command that runs until it is told to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_signals(act: Callable[[], object]) -> Iterator[None]:
    """While the `with` block runs, both call `act`; afterwards they do what they did before."""
    before = {number: signal.signal(number, lambda *_: act()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that both set: what is at hand is ended and saved, and the exit is clean."""
    stop = threading.Event()
    with on_signals(stop.set):
        yield stop
