"""Sends files of events at the moments that they tell: an event of 12:00:03 leaves when the clock says so."""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path

from contracts.app import App
from nodes.clock import now_ms
from nodes.kafka_produce import EventTopics, replay
from nodes.kafka_url import parse_kafka_url
from nodes.produce import EventFile, Pacer, arrivals


class _ByTheClock(Pacer):
    """An event is due at its own time; notes when the first one was, and how far behind any left."""

    def __init__(self) -> None:
        super().__init__(1, now_ms)
        self.first_ms: int | None = None
        self.behind_ms = 0

    def reached_ms(self, next_ms: int) -> int:
        at_ms = now_ms()
        if at_ms >= next_ms:
            self.first_ms = self.first_ms or at_ms
            self.behind_ms = max(self.behind_ms, at_ms - next_ms)
        return at_ms

    def wait_ms(self, until_ms: int) -> int:
        return max(0, until_ms - now_ms())


class Sender:
    """Sends while the `with` block runs, each event keyed by its impression so that it meets its clicks.

    Args:
        app: gives the bounds of time, and how brokers are spoken to.
        files: stream -> NDJSON.
        urls: stream -> kafka:// URL of its topic; all on the same brokers.
    """

    def __init__(self, app: App, files: Mapping[str, Path], urls: Mapping[str, str]) -> None:
        self._app = app
        self._files = [EventFile(stream, path) for stream, path in files.items()]
        self._urls = [parse_kafka_url(urls[stream]) for stream in files]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="send", daemon=True)
        self._pacer = _ByTheClock()
        self._topics: EventTopics | None = None
        self.last_ms: int | None = None  #: when the last one left
        self.error: BaseException | None = None

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def sent(self) -> dict[str, int]:
        """Stream -> records acknowledged."""
        told = {} if self._topics is None else self._topics.sent
        return {file.stream: told.get(url.topic, 0) for file, url in zip(self._files, self._urls, strict=True)}

    @property
    def first_ms(self) -> int | None:
        """When the first one left."""
        return self._pacer.first_ms

    @property
    def behind_ms(self) -> int:
        """The most that an event left after its time."""
        return self._pacer.behind_ms

    def wait(self, timeout_s: float) -> bool:
        """Wait until all has been sent; False when it is not yet.

        Raises:
            RocketError: the broker was lost for good.
        """
        self._thread.join(timeout_s)
        if self.error is not None:
            raise self.error
        return not self._thread.is_alive()

    def _run(self) -> None:
        kafka, (first_ms, last_ms) = self._app.config.kafka, self._app.config.ingest.event_times_ms
        lines = arrivals(self._files, time_min_ms=first_ms, time_max_ms=last_ms, max_line_bytes=kafka.max_message_bytes)
        names = [url.topic for url in self._urls]
        try:
            with contextlib.closing(EventTopics(self._urls[0].brokers, names, kafka, now_ms)) as self._topics:
                replay(lines, self._topics, self._pacer, self._stop, on_progress=self._left)
        except BaseException as error:  # told by `wait`, in the thread that waits
            self.error = error

    def _left(self, _: int) -> None:
        self.last_ms = now_ms()
