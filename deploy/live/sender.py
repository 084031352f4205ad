"""Sends files of events at the moments that they tell: an event of 12:00:03 leaves when the clock says so."""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from contracts.app import App
from nodes.clock import now_ms
from nodes.kafka_client import close_producer, producer
from nodes.kafka_errors import speaking
from nodes.kafka_url import parse_kafka_url
from nodes.produce import EventFile, arrivals

_TICK_S = 0.02
_PATIENCE_S = 5.0  # with a broker that is gone


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
        self._topics = [parse_kafka_url(urls[stream]) for stream in files]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="send", daemon=True)
        self.sent = dict.fromkeys(files, 0)  #: stream -> records acknowledged or under way
        self.first_ms: int | None = None  #: when the first one left
        self.last_ms: int | None = None
        self.behind_ms = 0  #: the most that an event left after its time
        self.error: BaseException | None = None

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

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
        ingest, kafka = self._app.config.ingest, self._app.config.kafka
        parts = arrivals(
            self._files,
            time_min_ms=round(ingest.event_time_min.timestamp() * 1000),
            time_max_ms=round(ingest.event_time_max.timestamp() * 1000),
            max_line_bytes=kafka.max_message_bytes,
        )
        try:
            with contextlib.ExitStack() as ends:
                out = producer(self._topics[0].brokers, kafka)
                ends.callback(close_producer, out, _PATIENCE_S)
                for frame in parts:
                    self._send(frame, out)
                    if self._stop.is_set():
                        break
                with speaking(str(self._topics[0])):
                    out.flush(kafka.request_timeout_s)
        except BaseException as error:  # told by `wait`, in the thread that waits
            self.error = error

    def _send(self, frame: pl.DataFrame, out: object) -> None:
        streams = [file.stream for file in self._files]
        while frame.height and not self._stop.is_set():
            at_ms = now_ms()
            due = int(frame["arrival_ms"].search_sorted(at_ms, side="right"))
            if not due:
                self._stop.wait(_TICK_S)
                continue
            self.first_ms = self.first_ms or at_ms
            self.behind_ms = max(self.behind_ms, at_ms - int(frame["arrival_ms"][0]))
            with speaking(str(self._topics[0])):
                for file, line, key in frame.head(due).select("file", "line", "key").iter_rows():
                    out.send(self._topics[file].topic, line, key=key.encode() if key else None)  # type: ignore[attr-defined]
                    self.sent[streams[file]] += 1
            self.last_ms = now_ms()
            frame = frame.slice(due)
