"""What is known of a Dataflow job before it is sent."""

import json
import re
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import BagStateSpec
from typer.testing import CliRunner

import flows.dataflow
from contracts.errors import ContractError
from deploy.commands.dataflow import app as dataflow_command
from flows.dataflow import check_graph, check_reachable, submit
from flows.runners import live_pipeline
from nodes.join_clicks import JoinClicks
from nodes.slots import Slots
from tests.endless_chunks import APP, ReadChunks, traffic
from tests.kafka_broker import KafkaBroker

OPTIONS = {
    "--project": "my-project-1",
    "--region": "europe-west1",
    "--temp_location": "gs://bucket/temp",
    "--sdk_container_image": "registry.example/rocket:1",
}
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "dataflow"


def dataflow(**changed: str | None) -> beam.Pipeline:
    options = {**OPTIONS, **{f"--{name}": value for name, value in changed.items()}}
    flags = [f"{name}={value}" for name, value in options.items() if value is not None]
    return live_pipeline("dataflow", APP, job_name=changed.get("job_name") or "ingest", options=flags)


def test_the_join_with_its_state_is_a_graph_that_dataflow_takes():
    pipeline = dataflow()
    _ = pipeline | ReadChunks(traffic(10)) | "Join" >> JoinClicks(APP, Slots(5_000))
    graph = check_graph(pipeline)
    assert graph.stateful == graph.keyed == ("Join/Settle slots",)
    assert graph.streaming
    assert all("ReadFromUnboundedSource" in name for name in graph.undeclared), "Beam's own, not ours"
    assert 10_000 < graph.proto_bytes < 1_000_000
    assert json.loads(json.dumps(graph.as_dict()))["steps"] == graph.steps


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"region": None}, r"^a Dataflow job needs --region; "),
        ({"sdk_container_image": None, "project": None}, r"^a Dataflow job needs --project, --sdk_container_image; "),
        ({"temp_location": "/somewhere"}, r"^the options of the Dataflow job are wrong: .*Invalid GCS path"),
        ({"job_name": "Rocket_1"}, r"^the options of the Dataflow job are wrong: Invalid job_name"),
    ],
)
def test_an_option_that_is_missing_or_wrong_is_one_sentence(changed, complaint, caplog):
    with pytest.raises(ContractError, match=complaint) as raised:
        dataflow(**changed)
    assert "\n" not in str(raised.value)
    assert caplog.records == []


class _Keeps(beam.DoFn):
    SEEN = BagStateSpec("seen", BytesCoder())

    def process(self, pair, seen=beam.DoFn.StateParam(SEEN)):
        yield pair


class _Unordered:
    """A key that Beam would pickle."""


def _pair(element: int) -> tuple[_Unordered, bytes]:
    return _Unordered(), b""


def test_a_key_whose_bytes_may_differ_is_refused():
    pipeline = dataflow()
    pairs = pipeline | beam.Create([1], reshuffle=False) | "Pair" >> beam.Map(_pair)
    _ = pairs | "Keep" >> beam.ParDo(_Keeps())
    with pytest.raises(ContractError, match=r"^step 'Keep' meets by a key coded with \w+, whose bytes may differ"):
        check_graph(pipeline)


def test_a_job_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(flows.dataflow, "_MOST_BYTES", 1000)
    pipeline = dataflow()
    _ = pipeline | beam.Create([b"x" * 2000], reshuffle=False)
    with pytest.raises(ContractError, match=r"^the job is [\d,]+ bytes and Dataflow takes 1,000; "):
        check_graph(pipeline)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("runs/live/examples", "is on this machine, which Dataflow's workers do not see"),
        ("kafka://10.0.0.7:9092,localhost:9092/clicks", "localhost is another machine for each of Dataflow's workers"),
        ("kafka://[::1]:9092/clicks", "::1 is another machine"),
    ],
)
def test_what_only_this_machine_reaches_is_refused(url, complaint):
    check_reachable(["kafka://10.0.0.7:9092,10.0.0.8:9092/clicks"])
    with pytest.raises(ContractError, match=complaint):
        check_reachable([url])


def test_the_template_describes_its_parameters():
    told = json.loads((FOLDER / "metadata.json").read_text())
    assert told["streaming"]
    parameters = {parameter["name"]: parameter for parameter in told["parameters"]}
    for parameter in parameters.values():
        assert {"name", "label", "helpText", "paramType"} <= set(parameter)
        assert set(parameter) <= {"name", "label", "helpText", "paramType", "isOptional", "regexes"}
    assert re.fullmatch(parameters["impressions"]["regexes"][0], "kafka://10.0.0.7:9092/ctr.impressions.v1")
    assert not re.fullmatch(parameters["examples"]["regexes"][0], "runs/live")


def test_the_image_is_built_from_images_that_the_user_names():
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM ${LAUNCHER_IMAGE} AS launcher",
        "FROM ${SDK_IMAGE}",
    ]
    copied = {line.split()[1] for line in lines if line.startswith("COPY") and "launcher" not in line}
    assert {"contracts", "model", "nodes", "flows", "deploy"} <= copied


@pytest.fixture
def topics(kafka: KafkaBroker) -> list[str]:
    return [f"--{stream}={kafka.url(kafka.create(partitions=2))}" for stream in ("impressions", "clicks")]


def test_the_whole_of_live_ingest_is_checked_and_not_sent(topics: list[str], tmp_path: Path):
    given = [f"{name}={value}" for name, value in OPTIONS.items()]
    where = ["--examples", "kafka://10.0.0.7:9092/ctr.examples.v1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(dataflow_command, [*topics, *where, *given, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output.splitlines()[-1])
    assert not told["sent"]
    assert told["undeclared"] == []
    assert any("Settle" in name for name in told["stateful"])
    assert any("Follow" in name for name in told["stateful"])
    assert told["proto_bytes"] < 5_000_000
    assert not (tmp_path / "out").exists()


def test_a_job_with_this_machines_brokers_is_not_sent(topics: list[str], tmp_path: Path):
    given = [f"{name}={value}" for name, value in OPTIONS.items()]
    where = ["--examples", "kafka://10.0.0.7:9092/ctr.examples.v1", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(dataflow_command, [*topics, *where, *given])
    assert isinstance(done.exception, ContractError)
    assert "127.0.0.1 is another machine" in str(done.exception)


def test_a_job_without_the_clouds_client_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.auth", None)
    pipeline = dataflow()
    _ = pipeline | beam.Create([1], reshuffle=False)
    with pytest.raises(ContractError, match=r"^sending needs the cloud's client: pip install 'apache-beam\[gcp\]'$"):
        submit(pipeline)
