"""A scorer that is always whole: a thread fetches, verifies and warms up each newer version, then swaps it in."""

import threading
from collections import Counter
from types import TracebackType

from contracts.app import App
from contracts.errors import RocketError, StoreError
from contracts.stores import WeightStore
from nodes.catalogue import Catalogue
from nodes.score import LightScorer

#: A version that was refused is tried again after so many looks: it may have been published anew.
_PATIENCE = 30
_FIRST_LOOK_S, _LAST_LOOK_S = 2.0, 3.0  # how long the scorer's start and its end wait for the store


class Refresher:
    """Holds the scorer of the newest version that fits; the scoring path only reads `scorer`.

    Args:
        app: whose versions fit.
        weights: where they lie; only the background thread speaks to it.
        every_s: seconds between looks.
        catalogue: the items whose candidates may come by id alone.

    What cannot be used is refused and counted, and the version before it goes on answering.
    """

    def __init__(
        self, app: App, weights: WeightStore, *, every_s: float = 1.0, catalogue: Catalogue | None = None
    ) -> None:
        self._app, self._weights, self._every_s, self._catalogue = app, weights, every_s, catalogue
        self.scorer = LightScorer(app, None, catalogue)  #: one assignment swaps it; a micro-batch reads it once
        self.sample: bytes | None = None  #: a request as they come here, to warm up with
        self.swaps = 0
        self.refused: Counter[str] = Counter()  #: kind of error -> how often
        self.last_refusal: str | None = None  #: the newest of them, in a sentence
        self._shunned: tuple[int, int] | None = None  # a refused version, and looks until it is tried again
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh-weights", daemon=True)

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
        version = None
        try:
            version = self._weights.current_version()
            if version is None or version == self.scorer.version or self._shuns(version):
                return False
            scorer = LightScorer(self._app, self._weights.fetch(version), self._catalogue)
            if self.sample is not None:
                scorer.answer([self.sample], now_ms=0)
        except RocketError as error:
            self.refused[type(error).__name__] += 1
            self.last_refusal = str(error)
            if version is not None and not isinstance(error, StoreError):
                self._shunned = (version, _PATIENCE)
            return False
        self.scorer, self._shunned = scorer, None
        self.swaps += 1
        return True

    def _shuns(self, version: int) -> bool:
        if self._shunned is None or self._shunned[0] != version:
            return False
        self._shunned = (version, self._shunned[1] - 1)
        return self._shunned[1] > 0

    def _run(self) -> None:
        self.look()
        self._looked.set()
        while not self._stop.wait(self._every_s):
            self.look()
