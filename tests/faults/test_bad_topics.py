"""Bad topics, bad messages and bad logs: each is one sentence and exit code 1, or a dead letter that is counted."""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from kafka import KafkaAdminClient, TopicPartition

from contracts.app import App, load_app
from contracts.events import Mark
from contracts.sections import Kafka
from contracts.segments import FeatureBatch
from flows.live_folder import LiveFolder
from nodes.example_logs import open_examples
from nodes.fake_traffic import examples
from nodes.kafka_client import consumer, producer
from nodes.ledger import read_fates
from nodes.positions import basis_of
from nodes.simulate import Faults, simulate
from nodes.source import BEFORE_ALL
from tests.commands import refused, rocket
from tests.kafka_broker import KafkaBroker

pytestmark = pytest.mark.e2e
NOWHERE = "kafka://127.0.0.1:9"
_QUICK = ("--set", "kafka.connect_timeout_s=0.3")
_SETS = ("--set", "labels.wait_s=60", "--set", "ingest.disorder_s=20")
_MESSAGE_BYTES = 6_000_000
_IN_2099_MS = round(datetime(2099, 1, 1, tzinfo=UTC).timestamp() * 1000)


class Topics:
    """Events in two topics, bad ones among them, and `rocket ingest` on them."""

    def __init__(self, kafka: KafkaBroker, folder: Path) -> None:
        self.kafka, self.out = kafka, folder / "out"
        simulate(folder, impressions=300, seed=3, days=0.01, rates=Faults(0, 0, 0, 0, 20, 60, 300))
        self.lines = {
            stream: (folder / f"{stream}.ndjson").read_bytes().splitlines() for stream in ("impressions", "clicks")
        }
        self.topics = {
            stream: kafka.create(kafka.name(stream), max_message_bytes=_MESSAGE_BYTES) for stream in self.lines
        }

    def produce(self, among: list[bytes | None]) -> None:
        """All of the events, in the middle of the impressions those given."""
        with contextlib.closing(producer((self.kafka.brokers,), Kafka())) as out:
            for stream, lines in self.lines.items():
                some = (
                    [*lines[: len(lines) // 2], *among, *lines[len(lines) // 2 :]] if stream == "impressions" else lines
                )
                for line in some:
                    out.send(self.topics[stream], line, key=b"k", partition=0)
            out.flush()

    def words(self, out: Path) -> list[str]:
        urls = [word for stream, topic in self.topics.items() for word in (f"--{stream}", self.kafka.url(topic))]
        return ["ingest", *urls, "--out", str(out), *_SETS]


@pytest.fixture(scope="module")
def topics(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Topics:
    made = Topics(kafka, tmp_path_factory.mktemp("topics"))
    first = json.loads(made.lines["impressions"][0])
    in_2099 = json.dumps(first | {"impression_id": "from-2099", "event_time_ms": _IN_2099_MS}).encode()
    made.produce([b"\xff\x00 poison", b'{"impression_id": ' * 5000, None, b" " * 5_000_000, in_2099])
    return made


def test_bad_messages_are_counted_dead_letters_and_the_others_live(topics: Topics) -> None:
    said = rocket(*topics.words(topics.out), "--until", "now", "--json")
    assert said.code == 0, said.err
    figures = json.loads(said.out.splitlines()[-1])
    good = len(topics.lines["impressions"])
    assert figures["examples_in_log"] == good
    fates = read_fates(topics.out / "fates").filter(stream="impressions")
    by = dict(fates.group_by("fate").len().iter_rows())
    assert by == {"accepted": good, "dead_lettered": 5}
    places = fates.filter(fate="dead_lettered")["line"].sort().to_list()
    assert places == list(range(good // 2, good // 2 + 5))
    dead = pl.read_parquet(topics.out / "dead_letters" / "*.parquet")
    assert dead["raw"].bin.size().max() <= 2_000_000, "a giant is kept whole"


@pytest.mark.parametrize("runner", ["embedded", "prism"])
def test_dead_letters_stand_in_a_topic_as_they_came_with_their_origin_and_reason(
    topics: Topics, tmp_path: Path, runner: str
) -> None:
    kafka, out = topics.kafka, tmp_path / "out"
    dead = kafka.create(kafka.name("dead"), max_message_bytes=_MESSAGE_BYTES)
    said = rocket(*topics.words(out), "--until", "now", "--runner", runner, "--dead-letters", kafka.url(dead))
    assert said.code == 0, said.err
    kept = pl.read_parquet(out / "dead_letters" / "*.parquet").sort("line")
    with contextlib.closing(consumer((kafka.brokers,), Kafka())) as reader:
        part = TopicPartition(dead, 0)
        reader.assign([part])
        reader.seek(part, 0)
        told: list[tuple[bytes, int, bytes]] = []
        while len(told) < kept.height:
            for record in next(iter(reader.poll(timeout_ms=5_000).values())):
                headers = dict(record.headers)
                assert headers["kafka_dlt-original-topic"].decode() == topics.topics["impressions"]
                offset = int.from_bytes(headers["kafka_dlt-original-offset"], "big")
                told.append((record.value, offset, headers["ctr_reason"]))
    assert sorted(told) == sorted(zip(kept["raw"], kept["line"], map(str.encode, kept["reason"]), strict=True))


def test_a_topic_that_has_grown_is_refused(topics: Topics) -> None:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=topics.kafka.brokers)) as admin:
        admin.create_partitions({topics.topics["impressions"]: 2})
    said = refused(rocket(*topics.words(topics.out), "--until", "now"))
    assert "was made with other topics" in said
    assert f'"{topics.topics["impressions"]}": 2' in said


@pytest.mark.parametrize("how", [["--until", "now"], ["--live"]], ids=["bounded", "live"])
def test_offsets_that_are_gone_stop_ingest(kafka: KafkaBroker, how: list[str], tmp_path: Path) -> None:
    topics = Topics(kafka, tmp_path)
    topics.produce([])
    app = load_app("adsim", {"labels": {"wait_s": 60}, "ingest": {"disorder_s": 20}})
    start = {origin: Mark(origin, 0, BEFORE_ALL) for origin in (f"{topic}:0" for topic in topics.topics.values())}
    ends = {f"{topic}:0": len(topics.lines[stream]) for stream, topic in topics.topics.items()}
    begun = LiveFolder(topics.out), basis_of(app, dict.fromkeys(topics.topics.values(), 1))
    topics.out.mkdir()
    begun[0].begin(begun[1], str(topics.out / "examples"), start, None if "--live" in how else ends)
    kafka.delete_records(topics.topics["clicks"], {0: 2})
    said = refused(rocket(*topics.words(topics.out), *how))
    assert topics.topics["clicks"] in said
    assert "live.gone" in said


@pytest.mark.parametrize("how", [["--until", "now"], ["--live"]], ids=["bounded", "live"])
def test_a_missing_topic_and_an_absent_broker_are_one_sentence(topics: Topics, how: list[str], tmp_path: Path) -> None:
    there, gone = topics.kafka.url(topics.topics["clicks"]), topics.kafka.name("gone")
    words = ["ingest", *how, "--out", str(tmp_path / "out"), *_QUICK, "--clicks", there, "--impressions"]
    assert f"{gone}: no such topic" in refused(rocket(*words, topics.kafka.url(gone)))
    assert "no broker answers" in refused(rocket(*words[:-2], f"{NOWHERE}/c", "--impressions", f"{NOWHERE}/i"))


@pytest.mark.parametrize("how", [[], ["--live"]], ids=["bounded", "live"])
def test_a_trainer_refuses_a_log_that_is_not_there_or_not_its_own(
    kafka: KafkaBroker, adsim: App, kuairand: App, how: list[str], tmp_path: Path
) -> None:
    words = ["train", *how, "--checkpoints", str(tmp_path / "checkpoints"), *_QUICK, "--examples"]
    gone, url = kafka.name("gone"), kafka.url(kafka.create(retention_ms=-1))
    assert f"{gone}: no such topic" in refused(rocket(*words, kafka.url(gone)))
    assert "no broker answers" in refused(rocket(*words, f"{NOWHERE}/examples"))
    with contextlib.closing(open_examples(url, kuairand)) as log:
        log.append(FeatureBatch(examples(kuairand, 300), 0, kuairand.schema_id))
    said = rocket(*words, url)
    (line,) = [line for line in said.err.splitlines() if line.startswith("rocket: ")]
    assert said.code == 1
    assert kuairand.schema_id in line
    assert adsim.schema_id in line
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))
