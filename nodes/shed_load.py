"""Which requests can still be scored in time, judged by what scoring has cost lately."""

from collections.abc import Sequence

_MEMORY = 0.9  # of the sums, kept from one micro-batch to the next: about ten of them count


class LoadShedder:
    """Fits the cost of a micro-batch as a part of its own plus one per byte of its requests, newest most.

    All requests of a micro-batch are answered together, so each waits for the cost of all of them.

    >>> shedder = LoadShedder()
    >>> for size in (1000, 2000, 3000):
    ...     shedder.measured(size, 1 + size / 1000)
    >>> round(shedder.cost_ms(10_000), 6)
    11.0
    >>> shedder.hopeless([1000, 1000, 1000], [2.5, 100, 3.5])
    [0]
    """

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0  # decayed sums over micro-batches

    def measured(self, size: int, took_ms: float) -> None:
        """A micro-batch of so many bytes took that long to score."""
        sums = (self._n, 1.0), (self._x, size), (self._y, took_ms), (self._xx, size * size), (self._xy, size * took_ms)
        self._n, self._x, self._y, self._xx, self._xy = (_MEMORY * kept + new for kept, new in sums)

    def cost_ms(self, size: int) -> float:
        """What a micro-batch of so many bytes will take; 0 while nothing was measured."""
        if not self._n:
            return 0.0
        spread = self._n * self._xx - self._x**2
        if spread <= 1e-9 * self._x**2:  # all of one size: nothing tells the two parts apart
            return self._y / self._x * size if self._x else 0.0
        each = max(0.0, (self._n * self._xy - self._x * self._y) / spread)
        own = (self._y - each * self._x) / self._n
        return own + each * size if own >= 0 else self._xy / self._xx * size

    def hopeless(self, sizes: Sequence[int], left_ms: Sequence[float]) -> list[int]:
        """The places of those to give up, so that all others are scored within what they have left.

        Those with the most time stay. With requests of one size, as many stay as can.

        Args:
            sizes: bytes of each request.
            left_ms: until the deadline of each.
        """
        order = sorted(range(len(sizes)), key=lambda place: -left_ms[place])
        together = best = 0
        for kept, place in enumerate(order, 1):
            together += sizes[place]
            if left_ms[place] >= self.cost_ms(together):
                best = kept
        return sorted(order[best:])
