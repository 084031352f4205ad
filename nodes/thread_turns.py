"""How long a thread may hold the interpreter while others wait for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Python's own 5 ms is paid several times an answer (network thread, producer, loop) beside a thread that computes.
TURN_S = 0.0005


@contextmanager
def short_turns(turn_s: float = TURN_S) -> Iterator[None]:
    """While the `with` block runs, threads of this process change over ten times as often as by default.

    A scorer's answers wait for its network threads, and those for whatever computes beside them: a new version being
    fetched, snapshots, metrics. Writing five answers beside a busy thread took 9 to 30 ms (p50) with 5 ms turns and
    4 to 7 ms with these; alone there was no difference.

    >>> with short_turns():
    ...     sys.getswitchinterval()
    0.0005
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(turn_s)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
