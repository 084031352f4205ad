"""The scorer through a real Kafka, at a fixed rate and under swaps, against a service that only answers.

load (librdkafka) ─▶ topics ─▶ rocket serve (a process) ◀─ Valkey ◀─ a version every second
        └──────────▶ topics ─▶ echo (a process)

Requests name 200 items by id alone. The versions are those of a trainer that learns 1,500 impressions a second, as the
app's `publish` section has it: what they touched, about 1 % of the rows, and all dense weights travel as a delta, and
after 16 deltas a full version does. With `whole` every version is full. Every weight is a function of the version and
of the one that touched it last, and so is every score: an answer proves which version made it (`proving_weights`).
Spans of load on the one and on the other take turns, so that a busy moment of the machine hits both. A trainer shares
the machine with both, too: while the echo has its turn, the same versions go to a name that nobody follows.
Percentiles are of all latencies, counted from when each request was due.
"""

import contextlib
import multiprocessing
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from contracts.app import App, load_app
from contracts.errors import StoreError
from contracts.stores import WeightStore
from contracts.weights import TouchedRows
from deploy.benches.peers.echo import echo
from deploy.benches.proving_weights import LEARNT, ProvingArrays, Replay, checked, rows_read
from deploy.benches.rdkafka_load import LINGER_MS, RdKafkaClient
from deploy.live.asker import ids_only, write_catalogue
from deploy.live.children import Child
from deploy.live.open_loop import load
from deploy.live.topics import make_run_topics
from deploy.live.traffic import prepare
from deploy.local.daemon import free_port
from deploy.local.kafka_server import KafkaServer
from nodes.clock import now_ms
from nodes.embedded_valkey import EmbeddedValkey
from nodes.publish import Publisher
from nodes.redis_weights import RedisWeights
from nodes.settled_heap import settled_heap
from nodes.source import read_events

PER_S, CANDIDATES, TMAX_MS = 500, 200, 100
CLIENT = "librdkafka"
_SPAN = {True: 1500, False: 5000}  # requests between two turns
_SPANS = {True: 2, False: 21}
_WARM = 500
_LINES, _ROWS = "requests.ndjson", "rows.npy"
_READY_S = 60.0


def run(quick: bool, *, whole: bool = False, client: str = CLIENT) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """105,000 requests (3,000 when quick) to the scorer and as many to the echo.

    Args:
        quick: a fiftieth of the requests.
        whole: publish a full version every second, in place of deltas and what the app's `publish` makes of them.
        client: `kafka.client` of both services.
    """
    app = load_app("adsim", {"publish": {"deltas": not whole}, "kafka": {"client": client}})
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        rows = _prepare(app, folder, _SPAN[quick])
        server = KafkaServer(folder / "kafka", heap_mb=512)
        server.start()
        stack.callback(server.kill)
        valkey = stack.enter_context(EmbeddedValkey(folder / "valkey"))
        urls = {who: make_run_topics(server.brokers, who, app.config.kafka) for who in ("scorer", "echo")}
        store, beside = (RedisWeights(valkey.url, name) for name in (app.name, f"{app.name}-unfollowed"))
        swapper, unfollowed = (
            Swapper(app, stack.enter_context(contextlib.closing(each)), rows) for each in (store, beside)
        )
        for each in (swapper, unfollowed):
            each.publish()
        scorer = stack.enter_context(_scorer(valkey.url, urls["scorer"], folder, client))
        stack.enter_context(_echo(urls["echo"], app))
        ask = stack.enter_context(_generator(urls, folder))
        for who in urls:
            ask(who, "warm", _WARM)
        parts: dict[str, list[Span]] = {"scorer": [], "echo": []}
        for number in range(_SPANS[quick]):
            with swapper:
                parts["scorer"].append(ask("scorer", str(number), _SPAN[quick]))
            with unfollowed:
                parts["echo"].append(ask("echo", str(number), _SPAN[quick]))
            scorer.alive()
        _, served = scorer.stop()
        full = sum(manifest.kind == "full" for manifest in store.versions())
    figures = _figures(parts["scorer"], parts["echo"], served or {})
    told = {
        "client": client,
        "published": swapper.published,
        "published_beside_echo": unfollowed.published,
        "published_full": full,
        "touched_rows": int(np.median(swapper.touched)),
    }
    return {"kafka": figures | told | {"rows": app.layout.light_rows}}


class Span(NamedTuple):
    """What one turn of load showed."""

    latency_ms: np.ndarray
    behind_ms: np.ndarray
    unanswered: int
    said: Counter[str]  #: by source or error; and mixed, late_unmarked
    versions: set[int]


class Swapper:
    """A trainer that publishes the next version every second while the `with` block runs: touched rows, or all.

    Args:
        app: its `publish` section says whether deltas go out, and when a full version does.
        store: where versions go.
        rows: that candidates read (`proving_weights.rows_read`).
        every_s: between two versions.
    """

    def __init__(self, app: App, store: WeightStore, rows: np.ndarray, every_s: float = 1.0) -> None:
        self._every_s, self._net = every_s, ProvingArrays(app, rows)
        self._publisher = Publisher(app, store, now_ms, force=True)
        self._stop, self._thread = threading.Event(), threading.Thread()
        self.published = 0
        self.touched: list[int] = []  #: rows, of each version after the first

    def publish(self) -> None:
        """One version more."""
        number = self.published + 1
        rows = self._net.move_to(number)
        self._publisher.offer(
            self._net.arrays,
            position=number * LEARNT,
            step=number,
            trained_until_ms=now_ms(),
            touched=TouchedRows(number - 1, rows),
        )
        self._publisher.finish()
        self.published = number
        if number > 1:
            self.touched.append(rows.size)

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


def _figures(scorer: list[Span], peer: list[Span], served: dict[str, Any]) -> dict[str, Any]:
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
        "versions_seen": len(set().union(*(span.versions for span in scorer))),
        "unanswered": sum(span.unanswered for span in scorer),
        "echo_unanswered": sum(span.unanswered for span in peer),
        "mixed_versions": marks["mixed"],
        "late_unmarked": marks["late_unmarked"],
        "answers": dict(said),
        "per_s": PER_S,
        "candidates": CANDIDATES,
        "tmax_ms": TMAX_MS,
        "linger_ms": LINGER_MS,
        "sent_behind_p99_ms": round(float(np.percentile(np.concatenate([s.behind_ms for s in scorer]), 99)), 2),
    }


def _prepare(app: App, folder: Path, count: int) -> np.ndarray:
    """Requests by ids alone, the catalogue that they need, and the table rows that they read."""
    files = prepare(app, folder / "events", seconds=10, per_s=2000, seed=1)
    shown = pl.concat(read.frame for read in read_events(files["impressions"], app.impressions, app, "impressions"))
    write_catalogue(shown, app, folder / "catalogue.parquet")
    lines = ids_only(shown, app, count, CANDIDATES, TMAX_MS, seed=1)
    (folder / _LINES).write_bytes(b"\n".join(lines))
    rows = rows_read(app, lines, pl.read_parquet(folder / "catalogue.parquet"))
    np.save(folder / _ROWS, rows)
    return rows


@contextlib.contextmanager
def _scorer(weights: str, urls: dict[str, str], folder: Path, client: str) -> Iterator[Child]:
    port = free_port()
    words: list[str | Path] = ["serve", "--requests", urls["requests"], "--responses", urls["responses"]]
    words += ["--weights", weights, "--catalogue", folder / "catalogue.parquet", "--group", "bench-scorer"]
    words += ["--refresh-s", "0.2", "--metrics-port", str(port), "--json", "--set", f"kafka.client={client}"]
    with Child(words, folder / "serve.log", port) as child:
        child.wait_ready(_READY_S)
        yield child


@contextlib.contextmanager
def _echo(urls: dict[str, str], app: App) -> Iterator[None]:
    given = (urls["requests"], urls["responses"], "bench-echo", app.config.kafka)
    process = multiprocessing.get_context("spawn").Process(target=echo, args=given, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def _generator(urls: dict[str, dict[str, str]], folder: Path) -> Iterator[Callable[[str, str, int], Span]]:
    """What asks: told whom, a name and how many, it gives what came of it."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_generate, args=(theirs, urls, folder), daemon=True)
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


def _generate(told: Connection, urls: dict[str, dict[str, str]], folder: Path) -> None:
    """The load generator's process, until nobody tells it anything more."""
    app, asked = load_app("adsim"), (folder / _LINES).read_bytes().split(b"\n")
    replay = Replay(app, np.load(folder / _ROWS))
    with contextlib.ExitStack() as stack, settled_heap(), contextlib.suppress(EOFError):
        clients = {
            who: stack.enter_context(RdKafkaClient(each["requests"], each["responses"])) for who, each in urls.items()
        }
        while True:
            who, name, count = told.recv()
            found = load(clients[who], asked[:count], PER_S, name=name)
            said, versions = Counter[str](), set[int]()
            if who == "scorer":
                said, versions = checked(replay, found.answers, candidates=CANDIDATES, tmax_ms=TMAX_MS)
            told.send(Span(found.latency_ms, found.behind_ms, found.unanswered, said, versions))
