"""The whole loop as processes on a broker and a Valkey of its own, under traffic, and the faults that befall it."""

import contextlib
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from contracts.app import App, load_app
from deploy.live.asker import Asker
from deploy.live.children import Child
from deploy.live.sender import Sender
from deploy.live.topics import make_run_topics
from deploy.live.traffic import moved_to, prepare
from deploy.local.daemon import free_port
from deploy.local.valkey_server import ValkeyServer
from model.checkpoint_manifest import names, order
from nodes.clock import now_ms
from nodes.example_logs import OpenExampleLog, open_examples
from nodes.fake_traffic import requests
from nodes.kafka_client import end_offsets
from nodes.kafka_url import parse_kafka_url
from nodes.redis_weights import RedisWeights
from tests.faults.oracles import WatchedLog, WatchedVersions
from tests.kafka_broker import KafkaBroker
from tests.random_examples import small_app_folder

SETTINGS: dict[str, dict[str, Any]] = {
    "labels": {"wait_s": 2, "dedupe_s": 10},
    "ingest": {"disorder_s": 1, "shards": 2},
    "live": {"slot_s": 0.5, "idle_s": 5, "position_every_s": 0.5},
    "publish": {"every_s": 1},
    "publish.gate": {
        "window_rows": 128,
        "max_logloss_increase": 9,
        "calibration": [0.01, 99.0],
        "max_live_ne": 99,
        "max_label_shift": 9,
        "max_prior_shift": 9,
    },
    "train.checkpoint": {"every_s": 0.5, "keep": 4},
}
SETS = [f"{section}.{name}={value}" for section, some in SETTINGS.items() for name, value in some.items()]
KILLS = ("trainer", "ingest", "scorer", "broker", "valkey")
OTHERS = ("fence", "full", "broken")
_READY_S, _SEEN_S = 90.0, 90.0
_FULL_BYTES = 4096  # no file of a checkpoint may grow beyond it
_REQUESTS_PER_S, _TMAX_MS = 10, 60_000


def wait(what: str, seen: Callable[[], object], within_s: float = _SEEN_S, poll_s: float = 0.02) -> None:
    """Wait until something is seen; says what was waited for in vain."""
    deadline = time.monotonic() + within_s
    while not seen():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(poll_s)


class LiveLoop:
    """Traffic, ingest, trainer and scorer, running while the `with` block runs; who dies is started again.

    Args:
        folder: takes everything.
        broker: may be killed.
        rng: decides all that is random.
        log: where the example log lies: "folder" or "topic".
        seconds: of traffic at most; it ends when the faults are over.
        per_s: impressions a second.
    """

    def __init__(
        self, folder: Path, broker: KafkaBroker, rng: random.Random, *, log: str, seconds: float, per_s: float
    ) -> None:
        self.folder, self.broker, self.rng = folder, broker, rng
        where = small_app_folder(folder / "app")
        overrides: dict[str, Any] = {"train": {}, "publish": {}}
        self._words = ["--app", str(where), "--json", *(word for each in SETS for word in ("--set", each))]
        for section, some in SETTINGS.items():
            first, _, rest = section.partition(".")
            overrides.setdefault(first, {}).update({rest: some} if rest else some)
        self.app: App = load_app(where, overrides)
        self.urls = make_run_topics(broker.brokers, f"faults-{now_ms():x}", self.app.config.kafka)
        self.out, self.checkpoints = folder / "ingest", folder / "checkpoints"
        self.examples: str | Path = self.out / "examples"
        if log == "topic":
            self.examples = broker.url(broker.create(broker.name("examples"), retention_ms=-1))
        self.valkey = ValkeyServer(folder / "valkey")
        self.recovered: list[tuple[str, float]] = []  #: what was started again, and seconds until it worked
        self.broken: set[str] = set()  #: checkpoints that were broken on purpose
        self.told: list[str] = []  #: what processes said that they must say
        self._children: dict[str, Child] = {}
        self._started = 0
        self._seconds, self._per_s = seconds, per_s

    @contextlib.contextmanager
    def running(self) -> Iterator["LiveLoop"]:
        """Start all; at the end nothing is left running, whatever happened."""
        with contextlib.ExitStack() as stack:
            self.valkey.start()
            stack.callback(self.valkey.kill)
            stack.callback(lambda: [child.__exit__(None, None, None) for child in self._children.values()])
            for name in ("ingest", "scorer", "trainer"):
                self._start(name)
            files = prepare(self.app, self.folder / "events", seconds=self._seconds, per_s=self._per_s, seed=1)
            store = RedisWeights(self.valkey.url, self.app.name, timeout_s=3)
            stack.callback(store.close)
            self.log: OpenExampleLog = open_examples(self.examples, self.app)
            stack.callback(self.log.close)
            seen = open_examples(self.examples, self.app)
            stack.callback(seen.close)
            self.versions, self.watched = WatchedVersions(store), WatchedLog(seen, self.app.schema_id)
            stack.enter_context(self._watching())
            made = requests(self.app, round(self._seconds * _REQUESTS_PER_S), 3)
            asked = [msgspec.json.encode(msgspec.json.decode(line) | {"tmax": _TMAX_MS}) for line in made]
            kafka = self.app.config.kafka
            # moving takes time, and a sender that begins `live.idle_s` after its first event is late by the rules
            start_ms = now_ms() + 2000 + round(8 * self._seconds)
            moved = moved_to(self.app, files, self.folder / "events" / "live", start_ms)
            self.asker = Asker(self.urls["requests"], self.urls["responses"], kafka, asked, _REQUESTS_PER_S)
            self.sender = Sender(self.app, moved, self.urls)
            for thread in (self.asker, self.sender):
                thread.__enter__()
                stack.callback(_end, thread)
            self._children["scorer"].wait_ready(_READY_S)
            self.grows()
            wait("a first checkpoint", lambda: len(names(self.checkpoints)) > 1)
            yield self

    def rows(self) -> int:
        """Of the example log; while the broker is away, as they were."""
        return self.watched.rows

    def grows(self) -> None:
        """Wait until the log is longer than now, and everybody lives."""
        before = self.rows()
        wait("more rows in the example log", lambda: self.alive() and self.rows() > before)

    def alive(self) -> bool:
        """Whether everything runs; raises with the last words of what does not."""
        for child in self._children.values():
            child.alive()
        assert self.sender.error is None, self.sender.error
        assert self.asker.error is None, self.asker.error
        return True

    def befall(self, fault: str) -> None:
        """Let a fault happen at a random moment under load, mend it, and see the loop work again."""
        assert self.sender._thread.is_alive(), "the traffic ended before the faults did: prepare more seconds of it"
        time.sleep(self.rng.uniform(0, 1.0))  # the moment is what is random
        getattr(self, f"_{fault}")()
        self.grows()

    def quiet(self) -> None:
        """End the traffic and the asking; all of it is in the topics then."""
        for thread in (self.sender, self.asker):
            assert _end(thread), f"{type(thread).__name__} does not end"
            assert thread.error is None, thread.error

    def stop(self) -> None:
        """SIGTERM to all that is ours; each must end with 0."""
        for child in self._children.values():
            seconds, _ = child.stop(60)
            self.recovered.append((f"stop {child.words[0]}", seconds))

    def _start(self, name: str) -> Child:
        port = free_port()
        log, self._started = self.folder / "logs" / f"{self._started:03d}-{name}.log", self._started + 1
        made = Child([*self._command(name), "--metrics-port", str(port), *self._words], log, port)
        self._children[name] = made.__enter__()
        return made

    def _command(self, name: str) -> list[str]:
        url = self.urls
        if name == "ingest":
            about = ["--impressions", url["impressions"], "--clicks", url["clicks"], "--out", str(self.out)]
            return ["ingest", "--live", *about, "--examples", str(self.examples)]
        if name == "trainer":
            about = ["--examples", str(self.examples), "--checkpoints", str(self.checkpoints)]
            return ["train", "--live", *about, "--weights", self.valkey.url]
        about = ["--requests", url["requests"], "--responses", url["responses"], "--group", url["requests"][-20:]]
        return ["serve", *about, "--weights", self.valkey.url, "--refresh-s", "0.2"]

    def _killed(self, name: str) -> None:
        child = self._children[name]
        child.alive()
        os.kill(child.pid, signal.SIGKILL)
        child.__exit__(None, None, None)

    def _again(self, name: str) -> None:
        """Start it again, one time in four only to kill it while it recovers; then wait until it works."""
        if self.rng.random() < 0.25:
            self._start(name)
            time.sleep(self.rng.uniform(0, 2.0))
            self._killed(name)
        began, rows = time.monotonic(), self.rows()
        child = self._start(name)
        child.wait_ready(_READY_S)
        if name == "ingest":
            wait("more rows after ingest was killed", lambda: self.alive() and self.rows() > rows)
        self.recovered.append((name, time.monotonic() - began))

    def _trainer(self) -> None:
        self._killed("trainer")
        self._again("trainer")

    def _ingest(self) -> None:
        self._killed("ingest")
        self._again("ingest")

    def _scorer(self) -> None:
        self._killed("scorer")
        self._again("scorer")

    def _broker(self) -> None:
        self.broker.kill()
        time.sleep(self.rng.uniform(0, 2.0))
        began = time.monotonic()
        self.broker.start()
        place = parse_kafka_url(self.urls["impressions"])

        def ends() -> int:
            return sum(end_offsets(place.brokers, place.topic, self.app.config.kafka).values())

        before = ends()
        wait("more events in the topic", lambda: self.alive() and ends() > before, poll_s=0.5)
        self.recovered.append(("broker", time.monotonic() - began))

    def _valkey(self) -> None:
        self.valkey.kill()
        time.sleep(self.rng.uniform(0, 1.0))
        began, before = time.monotonic(), self.versions.newest
        self.valkey.start()
        wait("a version after Valkey came back", lambda: self.alive() and self.versions.newest > before)
        self.recovered.append(("valkey", time.monotonic() - began))

    def _fence(self) -> None:
        """SIGSTOP of a trainer; a second one takes over; the first, continued, must end and leave no trace."""
        first, epoch = self._children["trainer"], self._epoch()
        os.kill(first.pid, signal.SIGSTOP)
        try:
            self._start("trainer")
            wait("a checkpoint of the second trainer", lambda: self.alive() and self._epoch() > epoch)
        finally:
            os.kill(first.pid, signal.SIGCONT)
        wait("the end of the trainer that was fenced out", lambda: _ended(first))
        said = first.log.read_text()
        if _code(first) != 1 or not ("claimed these checkpoints" in said or "has taken over" in said):
            self.told.append(f"a trainer past its fence ended with {_code(first)}: {said[-300:]}")
        first.__exit__(None, None, None)
        if self._epoch() <= epoch:
            self.told.append("a fenced trainer's checkpoint is the newest")

    def _full(self) -> None:
        """No room for checkpoints, then room again: training goes on, says so, and writes one when it can."""
        trainer = self._children["trainer"]
        limits = resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (_FULL_BYTES, limits[1]))
        wait("a word of the full disk", lambda: self.alive() and "cannot be written" in trainer.log.read_text())
        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, limits)
        before = names(self.checkpoints)[0]
        wait("a checkpoint when there is room", lambda: self.alive() and names(self.checkpoints)[0] != before)

    def _broken(self) -> None:
        """The newest checkpoint loses its end, or a bit of it turns, while its trainer is dead."""
        self._killed("trainer")
        path = self.checkpoints / names(self.checkpoints)[0]
        file = self.rng.choice([file for file in sorted(path.iterdir()) if file.stat().st_size])
        data = bytearray(file.read_bytes())
        if self.rng.random() < 0.5:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        else:
            del data[self.rng.randrange(len(data)) :]
        file.write_bytes(data)
        self.broken.add(path.name)
        self._again("trainer")
        if "going back to the checkpoint before it" not in self._children["trainer"].log.read_text():
            self.told.append(f"{file} is broken, and the trainer says nothing of it")

    def _epoch(self) -> int:
        """Of the newest checkpoint."""
        found = names(self.checkpoints)
        return order(found[0])[0] if found else 0

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.05):
                self.versions.look()
                self.watched.look()

        thread = threading.Thread(target=look, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _end(thread: Sender | Asker) -> bool:
    """Whether it ended; its client may hang where the broker is gone for good, and then nobody waits for it."""
    thread._stop.set()
    thread._thread.join(_SEEN_S)
    return not thread._thread.is_alive()


def _code(child: Child) -> int | None:
    assert child._process is not None
    return child._process.poll()


def _ended(child: Child) -> bool:
    return _code(child) is not None
