"""Asks a running scorer at a fixed rate, and notes for each request when and how it was answered."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from contracts.app import App
from contracts.sections import Kafka
from contracts.serving import AdResponse
from nodes.ad_client import AdClient, read_answer
from nodes.clock import now_ms
from nodes.requests import requests_from

#: One row a request.
ASKED = {
    "request_id": pl.String(),
    "asked_ms": pl.Int64(),  # epoch milliseconds, of the record
    "answered_ms": pl.Int64(),  # when its first answer was read; null: never
    "answers": pl.Int64(),
    "source": pl.String(),  # of the first answer; null with an error
    "error": pl.String(),  # its code
    "model_version": pl.Int64(),
    "scores": pl.Int64(),  # candidates with a probability
    "tmax_ms": pl.Int64(),
}
_PATIENCE_S = 10.0


def ids_only(frame: pl.DataFrame, app: App, count: int, candidates: int, tmax_ms: int, seed: int) -> list[bytes]:
    """Requests as a site sends them that leaves the rest to the catalogue: who, where, and ids of items.

    Args:
        frame: impressions, for users, contexts and items as they occur.
        app: whose requests.
        count: how many.
        candidates: items a request.
        tmax_ms: what each allows.
        seed: of the items drawn.
    """
    rng = np.random.default_rng(seed)
    item = app.requests.role("item_id")
    items = frame[app.impressions.role("item_id")].unique().sort().to_list()
    made = requests_from(frame, app).lines.to_list()
    drawn = rng.integers(0, len(items), (count, candidates))
    encode = msgspec.json.Encoder().encode
    lines = []
    for number in range(count):
        request = msgspec.json.decode(made[number % len(made)])
        request |= {"id": f"r{number}", "tmax": tmax_ms, "candidates": [{item: items[at]} for at in drawn[number]]}
        lines.append(encode(request))
    return lines


@dataclass
class _Answer:
    at_ms: int
    count: int
    response: AdResponse


class Asker:
    """Sends a request every `1 / per_s` seconds while the `with` block runs, and reads the answers.

    Args:
        requests: kafka:// URL of the requests' topic.
        responses: that of the answers.
        kafka: how brokers are spoken to.
        lines: the requests, each with its own id; sent round and round would repeat ids, so there must be enough.
        per_s: how many a second.
    """

    def __init__(self, requests: str, responses: str, kafka: Kafka, lines: Sequence[bytes], per_s: float) -> None:
        self._to, self._from, self._kafka = requests, responses, kafka
        self._lines, self._per_s = lines, per_s
        self._stop = threading.Event()
        self._asked: dict[str, tuple[int, int]] = {}  # id -> when, tmax
        self._answers: dict[str, _Answer] = {}
        self._thread = threading.Thread(target=self._run, name="ask", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> "Asker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> pl.DataFrame:
        """Ask no more, wait for the last answers, and give `ASKED`.

        Raises:
            RocketError: the broker was lost for good.
        """
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        rows = []
        for name, (asked_ms, tmax_ms) in self._asked.items():
            answer = self._answers.get(name)
            said = answer.response if answer else None
            rows.append(
                {
                    "request_id": name,
                    "asked_ms": asked_ms,
                    "answered_ms": answer.at_ms if answer else None,
                    "answers": answer.count if answer else 0,
                    "source": said.source if said else None,
                    "error": said.error.code if said and said.error else None,
                    "model_version": said.model_version if said else None,
                    "scores": sum(score.pctr is not None for score in said.scores) if said else 0,
                    "tmax_ms": tmax_ms,
                }
            )
        return pl.DataFrame(rows, schema=ASKED)

    def _run(self) -> None:
        try:
            with AdClient(self._to, self._from, self._kafka, timeout_s=_PATIENCE_S) as client:
                self._ask(client)
                self._await(client)
        except BaseException as error:  # told by `finish`, in the thread that waits
            self.error = error

    def _ask(self, client: AdClient) -> None:
        started, sent = time.monotonic(), 0
        while not self._stop.is_set() and sent < len(self._lines):
            due_s = started + sent / self._per_s - time.monotonic()
            if due_s > 0:
                self._read(client, due_s)
                continue
            line = self._lines[sent]
            asked = msgspec.json.decode(line)
            at_ms, name = now_ms(), asked["id"].encode()
            client.send([line], ids=[name], keys=[name], at_ms=at_ms, safe=False)
            self._asked[asked["id"]] = (at_ms, asked["tmax"])
            sent += 1
        client.flush()

    def _await(self, client: AdClient) -> None:
        until = time.monotonic() + _PATIENCE_S
        while client.waiting and time.monotonic() < until:
            self._read(client, 0.1)

    def _read(self, client: AdClient, wait_s: float) -> None:
        """The answers that have come, and those that come within that time."""
        self._note(read_answer(answer.value, self._from) for _, answer in client.answers(wait_s))

    def _note(self, responses: Iterable[AdResponse]) -> None:
        at_ms = now_ms()
        for response in responses:
            if response.id is None:
                continue
            before = self._answers.get(response.id)
            if before is None:
                self._answers[response.id] = _Answer(at_ms, 1, response)
            else:
                before.count += 1


def asked_figures(asked: pl.DataFrame) -> dict[str, Any]:
    """How the asking went: counts, sources, and milliseconds from asked to answered.

    Args:
        asked: `ASKED` columns.

    >>> asked_figures(pl.DataFrame(schema=ASKED))["requests"]
    0
    """
    took = asked.select(took=pl.col("answered_ms") - pl.col("asked_ms"))["took"].drop_nulls()
    sources = asked.filter(pl.col("answers") > 0).group_by(pl.col("source").fill_null("error")).len()
    return {
        "requests": asked.height,
        "unanswered": int((asked["answers"] == 0).sum()),
        "repeated": int((asked["answers"] > 1).sum()),
        "by_source": dict(sorted(sources.iter_rows())),
        "errors": int(asked["error"].is_not_null().sum()),
        "answer_ms_p50": took.quantile(0.5, "higher"),
        "answer_ms_p99": took.quantile(0.99, "higher"),
        "versions_seen": asked["model_version"].drop_nulls().n_unique(),
    }


def write_catalogue(frame: pl.DataFrame, app: App, path: Path) -> None:
    """Write the items of impressions as the scorer's catalogue, Parquet.

    Args:
        frame: impressions, with the columns of their contract.
        app: its requests contract says what an item has.
        path: the file.
    """
    item = app.requests.role("item_id")
    columns = [column.name for column in app.requests.columns if column.side == "item" and column.name in frame.columns]
    frame.select(*dict.fromkeys([item, *columns])).unique(item, keep="first", maintain_order=True).write_parquet(path)
