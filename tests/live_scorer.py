"""A `rocket serve` as a child process, versions for it to serve, and requests to ask it."""

import contextlib
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from contracts.app import App, load_app
from contracts.serving import AdResponse
from contracts.stores import Record, WeightStore
from nodes.ad_client import AdClient, read_answer
from nodes.fake_traffic import light_arrays, requests
from nodes.kafka_client import consumer
from nodes.light_numpy import sigmoid
from nodes.publish import Publisher
from tests.kafka_broker import KafkaBroker

SETS = ("model.embedding_dim=1", "model.light.hidden=[2]")
START_S = 30.0


def small_app() -> App:
    return load_app("adsim", {"model": {"embedding_dim": 1, "light": {"hidden": [2]}}})


def publish(app: App, store: WeightStore, number: int) -> None:
    """A version that scores everything with the logit -number / 100, so that an answer proves its version."""
    arrays = {name: np.zeros_like(array) for name, array in light_arrays(app).items()}
    arrays["bias"] = np.array([-number / 100], np.float32)
    publisher = Publisher(app, store, lambda: time.time_ns() // 1_000_000, force=True)
    publisher.offer(arrays, position=number, step=number, trained_until_ms=time.time_ns() // 1_000_000 - 5_000)
    publisher.finish()


def pctr_of(version: int) -> float:
    return float(sigmoid(np.array([np.float16(-version / 100)], np.float64))[0])


def ask(app: App, count: int, *, name: str = "q", tmax: int = 60_000) -> list[bytes]:
    """Requests with a minute to live, `<name>-0`, `<name>-1`, …"""
    return [
        json.dumps(json.loads(line) | {"id": f"{name}-{place}", "tmax": tmax}).encode()
        for place, line in enumerate(requests(app, count, 3))
    ]


def read(record: Record) -> AdResponse:
    return read_answer(record.value)


class Asker:
    """Asks over one client, and keeps every answer that ever comes."""

    def __init__(self, client: AdClient) -> None:
        self.client = client
        self.came: dict[bytes | None, list[AdResponse]] = {}

    def send(self, requests: list[bytes], **more: Any) -> list[bytes]:
        return self.client.send(requests, **more)

    def wait(self, ids: list[bytes], within_s: float = 30.0) -> list[list[AdResponse]]:
        """The answers to each, at least one; fails when one has none in time."""
        until_s = time.monotonic() + within_s
        while not all(each in self.came for each in ids) and time.monotonic() < until_s:
            for correlation_id, record in self.client.answers(0.2):
                self.came.setdefault(correlation_id, []).append(read(record))
        missing = [each for each in ids if each not in self.came]
        assert not missing, f"{len(missing)} of {len(ids)} requests unanswered after {within_s:g} s"
        return [self.came[each] for each in ids]

    def ask(self, requests: list[bytes], **more: Any) -> list[list[AdResponse]]:
        return self.wait(self.send(requests, **more))


class Scorer:
    """A child process that serves; its first line has been read."""

    def __init__(self, requests_url: str, responses_url: str, weights: str, *words: str) -> None:
        sets = [word for each in SETS for word in ("--set", each)]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "deploy.cli", "serve", "--json", "--requests", requests_url),
                *("--responses", responses_url, "--weights", weights, "--metrics-port", "0", "--refresh-s", "0.1"),
                *words,
                *sets,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put("")

    def started(self) -> "Scorer":
        """Wait for the line that says so."""
        line = self._lines.get(timeout=START_S)
        found = re.search(r"127.0.0.1:(\d+)/metrics", line)
        assert found, self.said
        self.port = int(found[1])
        return self

    def until_said(self, word: str, count: int) -> None:
        """Wait until so many of its lines hold the word."""
        until_s = time.monotonic() + START_S
        while sum(word in line for line in self.said) < count:
            assert time.monotonic() < until_s, self.said
            time.sleep(0.02)

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.page("/metrics")[1])
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def until(self, path: str, status: int, word: str = "", within_s: float = 20.0) -> str:
        """Wait until a page says so."""
        until_s = time.monotonic() + within_s
        while time.monotonic() < until_s:
            got, page = self.page(path)
            if got == status and word in page:
                return page
            time.sleep(0.02)
        raise AssertionError(f"{path} says {got}: {page}")

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def stop(self) -> dict[str, Any]:
        """SIGTERM; its figures."""
        self.process.send_signal(signal.SIGTERM)
        out = self._end()
        assert self.process.returncode == 0, self.said
        figures: dict[str, Any] = json.loads(out.splitlines()[-1])
        return figures

    def _end(self) -> str:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        out = self.process.stdout.read()
        self.process.wait(20)
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return out


class Place:
    """Two topics, a group, and who asks there."""

    def __init__(self, kafka: KafkaBroker, app: App, running: list[Scorer], words: Sequence[str] = ()) -> None:
        self.words = words  # of each scorer
        self.kafka, self.app, self.group, self.running = kafka, app, f"g-{uuid4().hex[:8]}", running
        self.requests = kafka.url(kafka.create(kafka.name("req"), 2))
        self.responses = kafka.url(kafka.create(kafka.name("resp"), 2))
        self.client = AdClient(self.requests, self.responses, app.config.kafka)
        self.asker = Asker(self.client)

    def scorer(self, weights: str, *words: str) -> Scorer:
        self.running.append(Scorer(self.requests, self.responses, weights, "--group", self.group, *self.words, *words))
        return self.running[-1]

    def ask(self, name: str, *, tmax: int = 60_000) -> tuple[str | None, int | None]:
        ((answer, *_),) = self.asker.ask(ask(self.app, 1, name=name, tmax=tmax))
        return answer.source, answer.model_version

    def uncommitted(self) -> int:
        """Requests that the group has not committed."""
        with contextlib.closing(consumer((self.kafka.brokers,), self.app.config.kafka, group_id=self.group)) as reader:
            topic = self.client.requests.topic
            parts = [part._replace(topic=topic) for part in self.client._consumer.assignment()]
            return sum(end - (reader.committed(part) or 0) for part, end in reader.end_offsets(parts).items())


@contextlib.contextmanager
def scorers() -> Iterator[list[Scorer]]:
    """What is put in is ended at the end, whatever happens."""
    running: list[Scorer] = []
    try:
        yield running
    finally:
        for each in running:
            if each.process.poll() is None:
                each.kill()
            elif each.process.stdout is not None and not each.process.stdout.closed:
                each._end()
