"""`rocket serve` and `rocket call` against a real Kafka and a real Valkey, as processes that are killed and drained."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from contracts.app import App
from nodes.embedded_valkey import EmbeddedValkey
from nodes.redis_weights import RedisWeights
from tests.commands import refused, rocket
from tests.kafka_broker import KafkaBroker
from tests.live_scorer import Place, ask, pctr_of, publish, read, scorers, small_app

pytestmark = pytest.mark.e2e
#: From SIGKILL to the first answer of the scorer started after it, on a machine whose cores are not all taken.
BACK_S = 3.0
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def patience(seconds: float) -> float:
    """That long, on a machine with a core free."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="module")
def app() -> App:
    return small_app()


CLIENTS = ["kafka-python", "librdkafka"]


@pytest.fixture(params=CLIENTS)
def place(kafka: KafkaBroker, app: App, request: pytest.FixtureRequest) -> Iterator[Place]:
    with scorers() as running:
        made = Place(kafka, app, running, ("--set", f"kafka.client={request.param}"))
        with made.client:
            yield made


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as started:
        yield started


def released(valkey: EmbeddedValkey, app: App, number: int) -> None:
    with contextlib.closing(RedisWeights(valkey.url, app.name)) as store:
        publish(app, store, number)


def test_each_request_is_answered_once_under_its_correlation_id_and_versions_only_grow(
    place: Place, valkey: EmbeddedValkey, app: App
) -> None:
    released(valkey, app, 1)
    scorer = place.scorer(valkey.url).started()
    bad = [b"junk", b"", b'{"id": "half"', b"\xff\xfe", b'{"id": "x", "candidates": [], "tmax": 60000}']
    bad *= 4
    answers = place.asker.ask([*ask(app, 180), *bad])
    assert {len(found) for found in answers} == {1}
    for number, (answer,) in enumerate(answers[:180]):
        assert (answer.id, answer.source, answer.model_version) == (f"q-{number}", "model", 1)
        assert [score.pctr for score in answer.scores] == [pytest.approx(pctr_of(1))] * 3
    assert all(answer.error for (answer,) in answers[180:])
    scorer.until("/healthz", 200, "ok")
    scorer.until("/readyz", 200)

    released(valkey, app, 2)
    seen = [place.ask("first")[1]]
    while seen[-1] != 2 and len(seen) < 300:
        seen.append(place.ask(f"s{len(seen)}")[1])
    assert [version for version in seen if version is not None] == sorted([1] * seen.count(1) + [2])
    called = rocket("call", "--to", place.requests, "--responses", place.responses, "--json")
    answer_ = json.loads(called.out)
    assert (called.code, answer_["source"], answer_["model_version"]) == (0, "model", 2)
    scorer.until("/metrics", 200, f'ctr_serve_requests_total{{source="model"}} {180 + len(seen) + 1}.0')
    scorer.until("/metrics", 200, 'ctr_serve_model_version{model="adsim"} 2.0')
    assert (scorer.metric("ctr_serve_errors_total"), scorer.metric("ctr_serve_swaps_total")) == (20, 2)
    assert scorer.metric("ctr_serve_freshness_seconds") == pytest.approx(10, abs=6)
    assert scorer.metric("ctr_serve_latency_seconds_count") == 200 + len(seen) + 1

    ids = place.asker.send(ask(app, 500, name="last"))
    figures = scorer.stop()
    done = figures["requests"] - 200 - len(seen) - 1
    assert (figures["left"], place.uncommitted()) == (0, 500 - done)
    place.scorer(valkey.url).started()
    assert {len(found) for found in place.asker.wait(ids)} == {1}, "what one drained, the next leaves"


def test_killed_it_is_back_within_seconds_and_answers_on_without_its_weight_store(
    place: Place, valkey: EmbeddedValkey, app: App
) -> None:
    released(valkey, app, 1)
    scorer = place.scorer(valkey.url).started()
    assert place.ask("before") == ("model", 1)
    for source, version in (("model", 1), ("prior", None)):
        scorer.kill()
        killed_s = time.monotonic()
        ids = place.asker.send([*ask(app, 5, name="hasty", tmax=1), *ask(app, 5, name="patient")])
        scorer = place.scorer(valkey.url)
        answers = place.asker.wait(ids)
        assert time.monotonic() - killed_s < patience(BACK_S)
        assert [answer.source for (answer,) in answers] == ["expired"] * 5 + [source] * 5
        assert scorer.started()
        if source == "model":
            os.kill(valkey.pid, signal.SIGKILL)
            assert place.ask("no store") == ("model", 1)
        assert place.ask("after") == (source, version)
    assert any("cannot be reached" in line and "prior" in line for line in scorer.said)


def test_every_request_that_a_killed_scorer_left_is_answered_under_its_id(
    place: Place, valkey: EmbeddedValkey, app: App
) -> None:
    released(valkey, app, 1)
    scorer = place.scorer(valkey.url).started()
    ids = place.asker.send(ask(app, 1000, name="many"))
    place.asker.wait(ids[:1])
    scorer.kill()
    place.scorer(valkey.url).started()
    for number, found in enumerate(place.asker.wait(ids)):
        assert {answer.id for answer in found} == {f"many-{number}"}


def test_two_scorers_share_the_partitions_and_one_that_leaves_hands_its_own_over_at_once(
    place: Place, valkey: EmbeddedValkey, app: App
) -> None:
    released(valkey, app, 1)
    pair = [place.scorer(valkey.url) for _ in range(2)]
    for scorer in pair:
        scorer.started().until("/metrics", 200, "ctr_serve_partitions 1.0")
    keys = [b"%d" % number for number in range(100)]
    until_s = time.monotonic() + 20
    while not all(scorer.metric("ctr_serve_requests_total") for scorer in pair):
        place.asker.ask(ask(app, 100), keys=keys)
        assert time.monotonic() < until_s
    left_s = time.monotonic()
    pair[0].stop()
    place.asker.ask(ask(app, 100), keys=keys)
    assert time.monotonic() - left_s < patience(4), "a member that only falls silent is missed after six seconds"
    pair[1].until("/metrics", 200, "ctr_serve_partitions 2.0")


def test_workers_share_the_partitions_one_that_is_killed_comes_back_and_all_end_with_their_parent(
    place: Place, valkey: EmbeddedValkey, app: App
) -> None:
    released(valkey, app, 1)
    parent = place.scorer(valkey.url, "--workers", "2").started()
    family = psutil.Process(parent.process.pid).children()
    workers = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    parent.until_said("serving", 2)
    keys = [b"%d" % number for number in range(100)]
    place.asker.ask(ask(app, 100, name="before"), keys=keys)
    workers[0].kill()
    for number, found in enumerate(place.asker.ask(ask(app, 100, name="after"), keys=keys)):
        assert {answer.id for answer in found} == {f"after-{number}"}
    parent.until_said("serving", 3)
    assert any("ended with -9; it is started again" in line for line in parent.said), parent.said
    place.asker.ask(ask(app, 100, name="last"), keys=keys)
    figures = parent.stop()
    assert 100 <= figures["requests"] <= 300, "what the killed one counted is lost"
    assert (figures["model_version"], figures["left"], place.uncommitted()) == (1, 0, 0)
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_that_comes_back_finds_the_scorer_waiting_and_one_that_does_not_lets_it_go(
    own_kafka: Callable[[], KafkaBroker], valkey: EmbeddedValkey, app: App, client: str
) -> None:
    released(valkey, app, 1)
    kafka = own_kafka()
    with scorers() as running, contextlib.ExitStack() as stack:
        place = Place(kafka, app, running, ("--set", f"kafka.client={client}"))
        stack.enter_context(place.client)
        scorer = place.scorer(valkey.url).started()
        assert place.ask("before") == ("model", 1)
        kafka.kill()
        scorer.until("/healthz", 200, "degraded: kafka://")
        scorer.until("/readyz", 503)
        kafka.start()
        up_s = time.monotonic()
        assert place.ask("after") == ("model", 1)
        assert time.monotonic() - up_s < patience(5)
        scorer.until("/healthz", 200, "ok")
        scorer.until("/readyz", 200)
        kafka.kill()
        scorer.until("/healthz", 200, "degraded")
        began_s = time.monotonic()
        assert scorer.stop()["requests"] == 2
        assert time.monotonic() - began_s < 10


def test_answers_go_nowhere_but_to_the_topics_that_are_allowed(place: Place, valkey: EmbeddedValkey, app: App) -> None:
    foreign = place.kafka.create(place.kafka.name("foreign"))
    scorer = place.scorer(valkey.url).started()
    headers = (("kafka_replyTopic", foreign.encode()), ("ce_id", b"e1"), ("traceparent", TRACE))
    answer = place.client.ask(ask(app, 1)[0], timeout_s=20, headers=headers)
    said = read(answer)
    assert (said.id, said.error and said.error.code, list(said.scores)) == ("q-0", "reply_topic_refused", [])
    back = dict(answer.headers)
    assert (back["traceparent"], "kafka_replyTopic" in back, back["ce_id"] != b"e1") == (TRACE, False, True)
    scorer.until("/metrics", 200, 'ctr_serve_errors_total{code="reply_topic_refused"} 1.0')


def test_what_cannot_work_is_refused_at_the_start_in_one_sentence(kafka: KafkaBroker, valkey: EmbeddedValkey) -> None:
    there, other, gone = (kafka.url(each) for each in (kafka.create(), kafka.create(), kafka.name("gone")))

    def serving(requests: str, responses: str = there, *words: str) -> str:
        quick = ("--set", "kafka.connect_timeout_s=0.3", *words)
        return refused(
            rocket("serve", "--requests", requests, "--responses", responses, "--weights", valkey.url, *quick)
        )

    assert "no broker answers" in serving("kafka://127.0.0.1:9/ctr.requests.v1", "kafka://127.0.0.1:9/r")
    assert f"{gone}: no such topic" in serving(gone)
    assert f"{gone}: no such topic" in serving(there, gone)
    assert "need two topics" in serving(there)
    assert "is no Kafka URL" in serving("requests.ndjson")
    assert "no answer" in refused(rocket("call", "--to", there, "--responses", other, "--timeout", "0.2"))
    assert "need two topics" in refused(rocket("call", "--to", there, "--responses", there))
    assert f"{gone}: no such topic" in refused(rocket("call", "--to", gone, "--responses", there))
