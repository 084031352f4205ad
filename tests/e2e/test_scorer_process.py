"""The scorer as a process: how soon it answers, what it loads, how much memory it holds, which items it knows."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from kafka import KafkaProducer

from contracts.app import App, load_app
from nodes.ad_client import AdClient
from nodes.fake_traffic import light_arrays
from nodes.publish import Publisher
from nodes.redis_weights import RedisWeights
from tests.kafka_broker import KafkaBroker
from tests.live_scorer import Asker, Scorer, ask, scorers, small_app

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("empty_valkey")]
_WIDTH = 40
#: Of the weights as float32, after swaps, and at most: those in use and those being fetched; the bytes that these come
#: in, read and joined (half each in fp16), and what says which of their numbers are finite.
_COPIES, _COPIES_AT_MOST = 2.2, 2.7
_PROGRAM_MB = 150.0


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", {"model": {"embedding_dim": _WIDTH}})


class Peak:
    """The most memory that a process held, looked at every few milliseconds."""

    def __init__(self, pid: int) -> None:
        self._process, self._stop = psutil.Process(pid), threading.Event()
        self.mb = 0.0
        self._thread = threading.Thread(target=self._watch)

    def now_mb(self) -> float:
        return self._process.memory_info().rss / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.mb = max(self.mb, self.now_mb())

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def store(valkey_url: str, app: App) -> Iterator[RedisWeights]:
    made = RedisWeights(valkey_url, app.name)
    yield made
    made.close()


def publish(app: App, store: RedisWeights, arrays: dict[str, np.ndarray], number: int) -> int:
    publisher = Publisher(app, store, lambda: time.time_ns() // 1_000_000, force=True)
    arrays["bias"] += 1e-3
    publisher.offer(arrays, position=number, step=number, trained_until_ms=number)
    publisher.finish()
    version = store.current_version()
    assert version is not None
    return version


def _later(look: Callable[[], float]) -> float:
    time.sleep(0.05)
    return look()


@pytest.mark.parametrize("client_name", ["kafka-python", "librdkafka"])
def test_memory_stays_within_copies_of_the_weights_over_swaps(
    kafka: KafkaBroker,
    valkey_url: str,
    store: RedisWeights,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    client_name: str,
) -> None:
    monkeypatch.setattr("tests.live_scorer.SETS", (f"model.embedding_dim={_WIDTH}",))
    arrays = light_arrays(app)
    weights_mb = sum(array.nbytes for array in arrays.values()) / 1e6
    assert 45 < weights_mb < 60
    version = publish(app, store, arrays, 1)
    asked, answered = kafka.url(kafka.create(kafka.name("req"))), kafka.url(kafka.create(kafka.name("resp")))
    with scorers() as running, AdClient(asked, answered, app.config.kafka) as client:
        asker, began_s = Asker(client), time.monotonic()
        words = ("--group", kafka.name("g"), "--set", f"kafka.client={client_name}")
        running.append(Scorer(asked, answered, valkey_url, *words))
        scorer = running[-1].started()
        scorer.until("/readyz", 200)
        ready_s = time.monotonic() - began_s
        with Peak(scorer.process.pid) as peak:
            for number in range(6):
                ((answer,),) = asker.ask(ask(app, 1, name=f"v{number}"))
                if number:
                    version = publish(app, store, arrays, number + 1)
                until_s = time.monotonic() + 20
                while answer.model_version != version and time.monotonic() < until_s:
                    ((answer,),) = asker.ask(ask(app, 1, name=f"v{number}-{time.monotonic_ns()}"))
                assert answer.model_version == version
            settled_mb = min(_later(peak.now_mb) for _ in range(20))
        told = (
            f"ready after {ready_s:.2f} s, {settled_mb:.0f} MB, at most {peak.mb:.0f} MB; weights {weights_mb:.0f} MB"
        )
        logging.getLogger(__name__).info(told)
        assert settled_mb <= _PROGRAM_MB + _COPIES * weights_mb, told
        assert peak.mb <= _PROGRAM_MB + _COPIES_AT_MOST * weights_mb, told
        scorer.stop()


def test_what_the_command_loads(tmp_path: Path) -> None:
    heavy = ["torch", "apache_beam", "pandas", "great_expectations", "sklearn", "scipy", "onnxruntime", "model"]
    code = f"import sys, deploy.commands.serve\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_items_of_a_topic_may_be_asked_for_by_id_as_soon_as_they_are_there(kafka: KafkaBroker, valkey_url: str) -> None:
    small = small_app()
    topic, asked = kafka.create(cleanup_policy="compact"), kafka.url(kafka.create(kafka.name("req")))
    answered = kafka.url(kafka.create(kafka.name("resp")))
    request = json.loads(ask(small, 1)[0])

    def by_id(name: str) -> bytes:
        return json.dumps(request | {"id": name, "candidates": [{"item_id": "a1"}, {"item_id": "a2"}]}).encode()

    with (
        contextlib.closing(KafkaProducer(bootstrap_servers=kafka.brokers)) as writer,
        scorers() as running,
        AdClient(asked, answered, small.config.kafka) as client,
    ):
        item = {"campaign_id": "c", "category": "k", "format": "banner"}
        writer.send(topic, key=b"a1", value=json.dumps(item | {"item_id": "a1"}).encode()).get(10)
        running.append(Scorer(asked, answered, valkey_url, "--group", kafka.name("g"), "--catalogue", kafka.url(topic)))
        running[-1].started().until("/readyz", 200)
        asker = Asker(client)
        ((first,),) = asker.ask([by_id("first")])
        assert [score.refused is None for score in first.scores] == [True, False]
        writer.send(topic, key=b"a2", value=json.dumps(item | {"item_id": "a2"}).encode()).get(10)
        until_s, later = time.monotonic() + 20, first
        while later.scores[1].refused is not None and time.monotonic() < until_s:
            ((later,),) = asker.ask([by_id(f"later-{time.monotonic_ns()}")])
        assert [score.refused for score in later.scores] == [None, None]
        running[-1].stop()
