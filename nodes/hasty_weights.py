"""A weight store that is waited for only so long: who trains must not stand still because a server hangs."""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from contracts.errors import StoreError
from contracts.stores import WeightStore
from contracts.weights import WeightManifest, Weights

Answer = TypeVar("Answer")


class HastyWeights:
    """Passes each call on to a store by a thread of its own, and goes on without an answer that does not come.

    While one call hangs, every further one is refused at once, so a server that hangs costs `patience_s` once, not
    with every call. A publish that was given up may still succeed: it is whole or absent, and doing it again is a
    no-op.

    Args:
        store: what is asked.
        patience_s: how long an answer is waited for.

    Raises:
        StoreError: by any call: no answer in time, or the call before still hangs.
    """

    def __init__(self, store: WeightStore, *, patience_s: float) -> None:
        self._store, self._patience_s = store, patience_s
        self._hanging: threading.Thread | None = None

    def publish(self, manifest: WeightManifest, chunks: Sequence[bytes]) -> WeightManifest:
        """As the store's."""
        return self._asked(lambda: self._store.publish(manifest, chunks))

    def current_version(self) -> int | None:
        """As the store's."""
        return self._asked(self._store.current_version)

    def fetch(self, version: int | None = None, *, base: Weights | None = None) -> Weights:
        """As the store's."""
        return self._asked(lambda: self._store.fetch(version, base=base))

    def versions(self) -> list[WeightManifest]:
        """As the store's."""
        return self._asked(self._store.versions)

    def take_epoch(self, above: int = 0) -> int:
        """As the store's."""
        return self._asked(lambda: self._store.take_epoch(above))

    def epoch(self) -> int:
        """As the store's."""
        return self._asked(self._store.epoch)

    def rollback(self, version: int, why: str) -> None:
        """As the store's."""
        self._asked(lambda: self._store.rollback(version, why))

    def newest_release(self) -> dict[str, str] | None:
        """As the store's."""
        return self._asked(self._store.newest_release)

    def record_held(self, entry: Mapping[str, str]) -> None:
        """As the store's."""
        self._asked(lambda: self._store.record_held(entry))

    def tell_serving(self, version: int | None, since_ms: int, expires_s: float) -> None:
        """As the store's."""
        self._asked(lambda: self._store.tell_serving(version, since_ms, expires_s))

    def _asked(self, call: Callable[[], Answer]) -> Answer:
        if self._hanging is not None and self._hanging.is_alive():
            raise StoreError("the weight store still owes the answer to an earlier call; check the server")
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((call(), None))
            except Exception as error:  # raised below, where it was asked
                answers.put((None, error))

        asking = threading.Thread(target=work, name="ask-weight-store", daemon=True)
        asking.start()
        try:
            answer, error = answers.get(timeout=self._patience_s)
        except queue.Empty:
            self._hanging = asking
            raise StoreError(
                f"the weight store gives no answer within {self._patience_s:g} s; check the server and the network"
            ) from None
        if error is not None:
            raise error
        found: Answer = answer
        return found
