"""A scorer that is always whole: a thread fetches, verifies and warms up each newer version, then swaps it in."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from contracts.app import App
from contracts.errors import RocketError, StoreError
from contracts.weights import Weights
from nodes.catalogue import Catalogue, CatalogueSource
from nodes.clock import now_ms
from nodes.score import LightScorer
from nodes.weight_buffers import ServedStore, WeightBuffers

#: A version that was refused is tried again after so many looks: it may have been published anew.
_PATIENCE = 30
#: After so many looks at the same number it is asked whether it is still the same version: a store that was wiped and
#: published into anew hands the numbers out again.
_SAME_LOOKS = 10
_TOLD_S = 10.0  # what is served here is forgotten that long after it was told last, at least
_FIRST_LOOK_S, _LAST_LOOK_S = 2.0, 3.0  # how long the scorer's start and its end wait for the store


class Refresher:
    """Holds the scorer of the newest version that fits; the scoring path only reads `scorer`, or `hold`s it.

    Args:
        app: whose versions fit.
        weights: where they lie; only the background thread speaks to it.
        every_s: seconds between looks.
        catalogue: the items whose candidates may come by id alone; looked at before the weights are.

    What cannot be used is refused and counted, and the version before it goes on answering.

    Memory: two sets of weights (`nodes.weight_buffers`); of a catalogue's items see `nodes.item_vectors`.
    """

    def __init__(
        self, app: App, weights: ServedStore, *, every_s: float = 1.0, catalogue: CatalogueSource | None = None
    ) -> None:
        self._app, self._weights, self._every_s, self._catalogue = app, weights, every_s, catalogue
        self._buffers = WeightBuffers(weights)
        self._used: Weights | None = None  # by `scorer`
        self._held: list[LightScorer] = []
        self._leases = threading.Condition()
        self.scorer = LightScorer(app, None, self._items())  #: one assignment swaps it; a micro-batch reads it once
        self.sample: bytes | None = None  #: a request as they come here, to warm up with
        self.swaps = 0
        self.catalogue_swaps = 0
        self.refused: Counter[str] = Counter()  #: kind of error -> how often
        self.last_refusal: str | None = None  #: the newest of them, in a sentence
        self._shunned: tuple[int, int] | None = None  # a refused version, and looks until it is tried again
        self._same_looks = 0  # that found the number served
        self._since_ms = now_ms()  # when what answers began to
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh-weights", daemon=True)

    @contextmanager
    def hold(self) -> Iterator[LightScorer]:
        """The scorer for one micro-batch: until the block ends, nothing is written over its weights.

        Whoever scores never waits here; the next fetch does, for those that still use a scorer before the newest.
        """
        with self._leases:
            scorer = self.scorer
            self._held.append(scorer)
        try:
            yield scorer
        finally:
            with self._leases:
                self._held.remove(scorer)
                self._leases.notify_all()

    def __enter__(self) -> "Refresher":
        """Look at once, but let nobody wait long for a store that does not answer: the prior does meanwhile."""
        self._thread.start()
        self._looked.wait(_FIRST_LOOK_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_LAST_LOOK_S)

    def look(self) -> bool:
        """Swap in the version that the pointer names if it is another and fits; True when it did."""
        self._look_at_items()
        version = weights = None
        try:
            version = self._weights.current_version()
            if version is None or self._serves(version) or self._shuns(version):
                return False
            self._await_leases()
            weights = self._buffers.advance(version)
            self._swap(LightScorer(self._app, weights, self.scorer.catalogue, before=self.scorer), weights)
        except RocketError as error:
            self._refuse(error)
            if weights is not None:  # the next one is written there, and not over those in use
                self._buffers.release(weights)
            if version is not None and not isinstance(error, StoreError):
                self._shunned = (version, _PATIENCE)
            return False
        self._shunned, self._since_ms = None, now_ms()
        self.swaps += 1
        return True

    def _look_at_items(self) -> None:
        """Swap in a catalogue that has changed, under the same weights."""
        try:
            items = self._items()
            if items is self.scorer.catalogue:
                return
            self._swap(LightScorer(self._app, self._used, items, before=self.scorer), self._used)
        except RocketError as error:
            self._refuse(error)
        else:
            self.catalogue_swaps += 1

    def _items(self) -> Catalogue | None:
        return None if self._catalogue is None else self._catalogue.latest()

    def _swap(self, scorer: LightScorer, weights: Weights | None) -> None:
        if self.sample is not None:
            scorer.answer([self.sample], now_ms=0)
        with self._leases:
            self.scorer = scorer
        self._used = weights

    def _await_leases(self) -> None:
        """Until nobody uses a scorer before the newest: its arrays are where the next version may be written."""
        with self._leases:
            self._leases.wait_for(lambda: all(held is self.scorer for held in self._held))

    def _refuse(self, error: RocketError) -> None:
        self.refused[type(error).__name__] += 1
        self.last_refusal = str(error)

    def _serves(self, version: int) -> bool:
        """Whether this is what answers: by its number, and now and then by what it is made of."""
        served = self.scorer.manifest
        if served is None or version != served.version:
            self._same_looks = 0
            return False
        self._same_looks += 1
        if self._same_looks % _SAME_LOOKS:
            return True
        return self._weights.manifest(version).digest == served.digest

    def _shuns(self, version: int) -> bool:
        if self._shunned is None or self._shunned[0] != version:
            return False
        self._shunned = (version, self._shunned[1] - 1)
        return self._shunned[1] > 0

    def _tell(self) -> None:
        """Say in the store what is served here, for `rocket versions`; a store that is away is told the next time."""
        with contextlib.suppress(RocketError):
            self._weights.tell_serving(self.scorer.version, self._since_ms, max(10 * self._every_s, _TOLD_S))

    def _run(self) -> None:
        self.look()
        self._looked.set()
        self._tell()
        while not self._stop.wait(self._every_s):
            self.look()
            self._tell()
