"""The scorer through a real Kafka, at a fixed rate and under swaps, against a service that only answers.

load (a process) ─▶ topics ─▶ rocket serve (a process) ◀─ Valkey ◀─ a version every second
        └─────────▶ topics ─▶ echo (a process)

Requests name 200 items by id alone. Every weight of a version is a function of its number, and so is every score: an
answer proves which version made it. Spans of load on the one and on the other take turns, so that a busy moment of the
machine hits both. Percentiles are of all latencies, counted from when each request was due.
"""

import contextlib
import multiprocessing
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from contracts.app import App, load_app
from contracts.errors import StoreError
from contracts.stores import Record, WeightStore
from deploy.benches.peers.echo import echo
from deploy.live.asker import ids_only, write_catalogue
from deploy.live.children import Child
from deploy.live.open_loop import load
from deploy.live.topics import make_run_topics
from deploy.live.traffic import prepare
from deploy.local.daemon import free_port
from deploy.local.kafka_server import KafkaServer
from nodes.ad_client import AdClient, read_answer
from nodes.clock import now_ms
from nodes.embedded_valkey import EmbeddedValkey
from nodes.fake_traffic import light_arrays
from nodes.publish import Publisher
from nodes.redis_weights import RedisWeights
from nodes.source import read_events

PER_S, CANDIDATES, TMAX_MS = 500, 200, 100
_SPAN = {True: 1500, False: 5000}  # requests between two turns
_SPANS = {True: 2, False: 21}
_WARM = 500
_LINES = "requests.ndjson"
_PERIOD = 64  # versions further apart look alike; none is that old
_READY_S = 60.0


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """105,000 requests (3,000 when quick) to the scorer and as many to the echo."""
    app = load_app("adsim")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        _prepare(app, folder, _SPAN[quick])
        server = KafkaServer(folder / "kafka", heap_mb=512)
        server.start()
        stack.callback(server.kill)
        valkey = stack.enter_context(EmbeddedValkey(folder / "valkey"))
        urls = {who: make_run_topics(server.brokers, who, app.config.kafka) for who in ("scorer", "echo")}
        store = RedisWeights(valkey.url, app.name)
        stack.callback(store.close)
        swapper = Swapper(app, store)
        swapper.publish()
        scorer = stack.enter_context(_scorer(valkey.url, urls["scorer"], folder))
        stack.enter_context(_echo(urls["echo"]))
        ask = stack.enter_context(_generator(urls, folder / _LINES))
        for who in urls:
            ask(who, "warm", _WARM)
        parts: dict[str, list[Span]] = {"scorer": [], "echo": []}
        for number in range(_SPANS[quick]):
            with swapper:
                parts["scorer"].append(ask("scorer", str(number), _SPAN[quick]))
            parts["echo"].append(ask("echo", str(number), _SPAN[quick]))
            scorer.alive()
        _, served = scorer.stop()
    return {"kafka": _figures(parts["scorer"], parts["echo"], swapper.published, served or {})}


class Span(NamedTuple):
    """What one turn of load showed."""

    latency_ms: np.ndarray
    behind_ms: np.ndarray
    unanswered: int
    said: Counter[str]  #: by source or error; and mixed, late_unmarked
    versions: set[int]


def proving_arrays(app: App, version: int) -> dict[str, np.ndarray]:
    """A light net that gives every item the same score, another one with each version (float32, exact in fp16)."""
    level = (1 + version % _PERIOD) / _PERIOD
    arrays = {name: np.zeros_like(array) for name, array in light_arrays(app).items()}
    arrays["embedding"][:] = level
    arrays["wide"][:] = level / 64
    arrays["bias"][:] = -1
    width = len(app.layout.light_ids) * app.config.model.embedding_dim
    arrays["mlp.0.weight"][:, :width] = 1 / 64
    arrays["mlp.1.weight"][:] = 1 / 64
    arrays["mlp.2.weight"][:] = -1 / 32
    return arrays


def proven_pctr(app: App, version: int) -> float:
    """What those weights give, worked out by hand: sigmoid of the bias, the wide part and two equal layers."""
    level, fields = (1 + version % _PERIOD) / _PERIOD, len(app.layout.light_ids)
    first, second = app.config.model.light.hidden
    hidden = fields * app.config.model.embedding_dim * level / 64 * first / 64
    return float(1 / (1 + np.exp(1 - fields * level / 64 + second * hidden / 32)))


class Swapper:
    """Publishes the next version every second while the `with` block runs."""

    def __init__(self, app: App, store: WeightStore, every_s: float = 1.0) -> None:
        self._app, self._store, self._every_s = app, store, every_s
        self._stop, self._thread = threading.Event(), threading.Thread()
        self.published = 0

    def publish(self) -> None:
        """One version more."""
        number = self.published + 1
        publisher = Publisher(self._app, self._store, now_ms, force=True)
        publisher.offer(proving_arrays(self._app, number), position=number, step=number, trained_until_ms=now_ms())
        publisher.finish()
        self.published = number

    def __enter__(self) -> "Swapper":
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="swap", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.publish()


def checked(app: App, answers: Sequence[tuple[Record, int]]) -> tuple[Counter[str], set[int]]:
    """What answers of the scorer say, how many of them mix versions, and how many left late without a mark.

    Args:
        app: whose `proving_arrays` were served.
        answers: each with the time that its request left, epoch milliseconds.
    """
    said, versions = Counter[str](), set[int]()
    for record, left_ms in answers:
        made = read_answer(record.value)
        said[made.error.code if made.error else str(made.source)] += 1
        if not made.scores:
            continue
        versions.add(made.model_version or 0)
        expected = proven_pctr(app, made.model_version or 0)
        got = np.array([score.pctr for score in made.scores], np.float64)  # a refused one is NaN
        said["mixed"] += len(got) != CANDIDATES or not np.allclose(got, expected, atol=1e-4, rtol=0)
        said["late_unmarked"] += record.timestamp_ms > left_ms + TMAX_MS
    return said, versions


def _figures(scorer: list[Span], peer: list[Span], published: int, served: dict[str, Any]) -> dict[str, Any]:
    mine, theirs = (np.concatenate([span.latency_ms for span in spans]) for spans in (scorer, peer))
    said: Counter[str] = sum((span.said for span in scorer), Counter())
    marks = {name: said.pop(name, 0) for name in ("mixed", "late_unmarked")}

    def percentiles(latency_ms: np.ndarray, prefix: str = "") -> dict[str, float]:
        at = {"p50": 50, "p95": 95, "p99": 99, "p999": 99.9}
        return {f"{prefix}{name}_ms": round(float(np.percentile(latency_ms, p)), 2) for name, p in at.items()}

    return {
        "requests": sum(span.latency_ms.size + span.unanswered for span in scorer),
        **percentiles(mine),
        **percentiles(theirs, "echo_"),
        "p99_above_echo_ms": round(float(np.percentile(mine, 99) - np.percentile(theirs, 99)), 2),
        "swaps": served.get("swaps", 0),
        "published": published,
        "versions_seen": len(set().union(*(span.versions for span in scorer))),
        "unanswered": sum(span.unanswered for span in scorer),
        "echo_unanswered": sum(span.unanswered for span in peer),
        "mixed_versions": marks["mixed"],
        "late_unmarked": marks["late_unmarked"],
        "answers": dict(said),
        "per_s": PER_S,
        "candidates": CANDIDATES,
        "tmax_ms": TMAX_MS,
        "sent_behind_p99_ms": round(float(np.percentile(np.concatenate([s.behind_ms for s in scorer]), 99)), 2),
    }


def _prepare(app: App, folder: Path, count: int) -> None:
    """Requests by ids alone, and the catalogue that they need."""
    files = prepare(app, folder / "events", seconds=10, per_s=2000, seed=1)
    shown = pl.concat(read.frame for read in read_events(files["impressions"], app.impressions, app, "impressions"))
    write_catalogue(shown, app, folder / "catalogue.parquet")
    (folder / _LINES).write_bytes(b"\n".join(ids_only(shown, app, count, CANDIDATES, TMAX_MS, seed=1)))


@contextlib.contextmanager
def _scorer(weights: str, urls: dict[str, str], folder: Path) -> Iterator[Child]:
    port = free_port()
    words: list[str | Path] = ["serve", "--requests", urls["requests"], "--responses", urls["responses"]]
    words += ["--weights", weights, "--catalogue", folder / "catalogue.parquet", "--group", "bench-scorer"]
    words += ["--refresh-s", "0.2", "--metrics-port", str(port), "--json"]
    with Child(words, folder / "serve.log", port) as child:
        child.wait_ready(_READY_S)
        yield child


@contextlib.contextmanager
def _echo(urls: dict[str, str]) -> Iterator[None]:
    given = (urls["requests"], urls["responses"], "bench-echo")
    process = multiprocessing.get_context("spawn").Process(target=echo, args=given, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def _generator(urls: dict[str, dict[str, str]], lines: Path) -> Iterator[Callable[[str, str, int], Span]]:
    """What asks: told whom, a name and how many, it gives what came of it."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_generate, args=(theirs, urls, lines), daemon=True)
    process.start()
    theirs.close()

    def ask(who: str, name: str, count: int) -> Span:
        ours.send((who, name, count))
        try:
            told: Span = ours.recv()
        except EOFError:
            raise StoreError("the load generator ended; what it said stands above") from None
        return told

    try:
        yield ask
    finally:
        ours.close()
        process.join(10)
        process.terminate()


def _generate(told: Connection, urls: dict[str, dict[str, str]], lines: Path) -> None:
    """The load generator's process, until nobody tells it anything more."""
    app, asked = load_app("adsim"), lines.read_bytes().split(b"\n")
    with contextlib.ExitStack() as stack, contextlib.suppress(EOFError):
        clients = {
            who: stack.enter_context(AdClient(each["requests"], each["responses"], app.config.kafka))
            for who, each in urls.items()
        }
        while True:
            who, name, count = told.recv()
            found = load(clients[who], asked[:count], PER_S, name=name)
            said, versions = checked(app, found.answers) if who == "scorer" else (Counter[str](), set[int]())
            told.send(Span(found.latency_ms, found.behind_ms, found.unanswered, said, versions))
