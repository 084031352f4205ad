"""Which requests can still be scored in time, judged by what scoring has cost lately."""

from collections import deque
from collections.abc import Sequence

import numpy as np

_MEMORY = 31  # micro-batches
_LEAST = 5  # of them, before anything is shed: the first are slow, since nothing is warm yet
_FIT_EVERY = 8  # of them; a fit costs a fifth of a millisecond


class LoadShedder:
    """Fits the cost of a micro-batch as a part of its own plus one per byte of its requests.

    The line is that of Theil and Sen: medians of slopes and of rests over the last micro-batches, so one that was slow
    for a reason of its own (the first one, a swap) sheds nothing. All requests of a micro-batch are answered together,
    so each waits for the cost of all of them.

    >>> shedder = LoadShedder()
    >>> for size in (1000, 2000, 3000, 1000, 2000):
    ...     shedder.measured(size, 1 + size / 1000)
    >>> round(shedder.cost_ms(10_000), 6)
    11.0
    >>> shedder.hopeless([1000, 1000, 1000], [2.5, 100, 3.5])
    [0]
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_MEMORY)
        self._own_ms = self._each_ms = 0.0
        self._unfitted = 0

    def measured(self, size: int, took_ms: float) -> None:
        """A micro-batch of so many bytes took that long to score."""
        self._seen.append((size, took_ms))
        self._unfitted += 1
        if _LEAST <= len(self._seen) < _FIT_EVERY or self._unfitted == _FIT_EVERY:
            self._fit()

    def cost_ms(self, size: int) -> float:
        """What a micro-batch of so many bytes will take; 0 while too little was measured."""
        return self._own_ms + self._each_ms * size

    def hopeless(self, sizes: Sequence[int], left_ms: Sequence[float]) -> list[int]:
        """The places of those to give up, so that all others are scored within what they have left.

        Those with the most time stay. With requests of one size, as many stay as can. The one with the most time stays
        while it has any: without measuring now and then, an estimate that is too high would never come down.

        Args:
            sizes: bytes of each request.
            left_ms: until the deadline of each.
        """
        order = sorted(range(len(sizes)), key=lambda place: -left_ms[place])
        best = int(bool(order) and left_ms[order[0]] >= 0)
        together = 0
        for kept, place in enumerate(order, 1):
            together += sizes[place]
            if left_ms[place] >= self.cost_ms(together):
                best = kept
        return sorted(order[best:])

    def _fit(self) -> None:
        self._unfitted = 0
        sizes, took = np.array(self._seen, np.float64).T
        step, rise = sizes[:, None] - sizes, took[:, None] - took
        slopes = rise[step > 0] / step[step > 0]
        if slopes.size == 0:  # all of one size: nothing tells the two parts apart
            slopes = took / np.maximum(sizes, 1)
        self._each_ms = max(0.0, float(np.median(slopes)))
        self._own_ms = max(0.0, float(np.median(took - self._each_ms * sizes)))
