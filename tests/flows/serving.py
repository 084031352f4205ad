"""A scorer over logs in memory: what is asked, what is published, and what came out."""

import json
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from contracts.app import App, load_app
from contracts.serving import AdResponse
from contracts.stores import Record
from flows.serve import serve
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import ManualClock, MemoryLog, MemoryWeights
from nodes.light_numpy import sigmoid
from nodes.publish import Publisher


def small_app() -> App:
    return load_app("adsim", {"model": {"embedding_dim": 1, "light": {"hidden": [2]}}})


def publish(app: App, store: MemoryWeights, number: int, clock: Callable[[], int] = lambda: 0) -> None:
    """A version that scores everything with the logit -number / 100, so that an answer proves its version."""
    arrays = {name: np.zeros_like(array) for name, array in light_arrays(app).items()}
    arrays["bias"] = np.array([-number / 100], np.float32)
    publisher = Publisher(app, store, clock, force=True)
    publisher.offer(arrays, position=number, step=number, trained_until_ms=number)
    publisher.finish()


def pctr_of(version: int) -> float:
    return float(sigmoid(np.array([np.float16(-version / 100)], np.float64))[0])


def ask(app: App, count: int, seed: int = 0) -> list[bytes]:
    """Requests with a second to live."""
    return [json.dumps(json.loads(line) | {"tmax": 1000}).encode() for line in requests(app, count, 3, seed)]


def responses_of(log: MemoryLog) -> list[AdResponse]:
    return [msgspec.json.decode(record.value, type=AdResponse) for record in log.records]


class EndingLog(MemoryLog):
    """Sets `stop` when there is nothing left to poll."""

    stop: threading.Event

    def poll(self, max_wait_ms: int, max_records: int) -> Any:
        found = super().poll(0, max_records)
        if not found:
            self.stop.set()
        return found


def serve_all(app: App, asked: EndingLog, answered: MemoryLog, store: MemoryWeights, **more: Any) -> dict[str, Any]:
    asked.stop = threading.Event()
    return serve(app, asked, answered, store, stop=asked.stop, clock_ms=more.pop("clock_ms", ManualClock(5)), **more)


def read(record: Record) -> AdResponse:
    return msgspec.json.decode(record.value, type=AdResponse)
