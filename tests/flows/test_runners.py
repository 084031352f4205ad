"""Which runner gets which options, and what a failure of one reads like."""

import logging
import threading
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PortableOptions, StandardOptions
from apache_beam.runners.portability.prism_runner import PrismRunner

from contracts.app import load_app
from contracts.errors import ContractError, CorruptError, RunnerCrashedError, StoreError
from flows import prism
from flows.flink import FlinkOptions, rest_addresses
from flows.prism import Prism, find_prism, prism_cache
from flows.runner_errors import as_rocket_error, through_crashes
from flows.runners import live_pipeline, start

APP = load_app("adsim", {"flink": {"parallelism": 2, "checkpoint_s": 0.25, "restarts": 5, "restart_delay_s": 1.5}})


def given(pipeline: beam.Pipeline) -> dict[str, object]:
    return pipeline.options.get_all_options(drop_default=True)


def test_flink_checkpoints_whole_bundles_and_never_ends_a_quiet_source():
    pipeline = live_pipeline("flink", APP, job_endpoint="here:8099", job_name="ingest", flink_rest="here:8081")
    options = given(pipeline)
    wanted = {
        "streaming": True,
        "parallelism": 2,
        "checkpointing_interval": 250,
        "finish_bundle_before_checkpointing": True,
        "number_of_execution_retries": 5,
        "execution_retry_delay": 1500,
        "job_endpoint": "here:8099",
        "job_name": "ingest",
        "environment_type": "LOOPBACK",
    }
    assert {name: options.get(name) for name in wanted} == wanted
    assert "shutdown_sources_after_idle_ms" not in options
    assert pipeline.options.view_as(FlinkOptions).flink_rest == "here:8081"


def test_nodes_run_in_a_pool_of_workers_where_one_is_named():
    pipeline = live_pipeline("flink", APP, job_endpoint="here:8099", worker_pool="localhost:50000")
    options = pipeline.options.view_as(PortableOptions)
    assert (options.environment_type, options.environment_config) == ("EXTERNAL", "localhost:50000")


@pytest.mark.parametrize("runner", ["prism", "flink"])
def test_a_run_is_not_lost_when_the_job_servers_timeout_is_over(runner):
    """It is also the deadline of the stream that tells how the run goes; Beam's default is a minute."""
    options = live_pipeline(runner, APP, job_endpoint="here:1").options
    assert options.view_as(PortableOptions).job_server_timeout > 365 * 86_400


def test_prism_streams_and_the_embedded_runner_does_not():
    pipeline = live_pipeline("prism", APP)
    assert isinstance(pipeline.runner, PrismRunner)
    assert pipeline.options.view_as(StandardOptions).streaming
    assert not live_pipeline("embedded", APP).options.view_as(StandardOptions).streaming


def test_no_option_makes_beam_warn(caplog):
    with caplog.at_level(logging.WARNING):
        live_pipeline("flink", APP, job_endpoint="here:8099", flink_rest="here:8081")
        live_pipeline("prism", APP)
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize(
    ("runner", "complaint"),
    [
        ("prsm", r"^no runner 'prsm'; did you mean 'prism'\?$"),
        ("flink", r"^the runner flink needs a job server: rocket up --flink, or --job-endpoint HOST:PORT$"),
        ("dataflow", r"^a Dataflow job needs --project, --region, --temp_location, --sdk_container_image; "),
    ],
)
def test_what_a_runner_lacks_is_one_sentence(runner, complaint):
    with pytest.raises(ContractError, match=complaint):
        live_pipeline(runner, APP)


def test_a_job_server_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr("flows.flink.check_job_server.__kwdefaults__", {"wait_s": 0.3})
    pipeline = live_pipeline("flink", APP, job_endpoint="127.0.0.1:1")
    _ = pipeline | beam.Create([1], reshuffle=False)
    with pytest.raises(StoreError, match=r"^127\.0\.0\.1:1: no job server answers there; start one"):
        start(pipeline)


def test_the_embedded_runner_comes_back_at_the_end_with_its_counters():
    pipeline = live_pipeline("embedded", APP)
    _ = pipeline | beam.Create([1, 2, 3], reshuffle=False) | beam.Map(_count)
    with start(pipeline) as running:
        assert running.wait(threading.Event())
        assert running.counters()["seen"] == 3


def _count(element: int) -> int:
    from apache_beam.metrics.metric import Metrics

    Metrics.counter("rocket", "seen").inc()
    return element


def test_the_embedded_runners_failure_is_the_nodes_own():
    pipeline = live_pipeline("embedded", APP)
    _ = pipeline | beam.Create([1], reshuffle=False) | "Fail" >> beam.Map(_fail)
    with pytest.raises(CorruptError, match=r"^segment 3: is cut; fetch it again$"):
        start(pipeline)


def _fail(element: int) -> int:
    raise CorruptError("segment 3: is cut; fetch it again")


def test_a_failure_that_no_node_raised_keeps_its_last_line():
    error = as_rocket_error(
        RuntimeError("Pipeline j failed in state FAILED: bundle:\n  at x\nValueError: bad wire\n\n")
    )
    assert isinstance(error, StoreError)
    assert str(error) == "the runner failed: ValueError: bad wire"
    assert as_rocket_error(error) is error


def test_a_panic_of_prism_is_the_runners_own_fault():
    told = (
        "Pipeline job failed in state FAILED: panic in stage.Execute bundle processing goroutine: runtime error: "
        "invalid memory address or nil pointer dereference, stage: &{ID:stage-005},\n"
        "golang.org/x/sync/errgroup.go:78 +0x95"
    )
    error = as_rocket_error(RuntimeError(told))
    assert type(error) is RunnerCrashedError
    assert str(error).endswith("goroutine: runtime error: invalid memory address or nil pointer dereference)")


def test_what_the_runner_let_fall_is_taken_up_for_as_long_as_it_gets_on():
    rows, fallen = [0, 10, 10], []

    def attempt() -> str:
        fallen.append(RunnerCrashedError("fell over"))
        raise fallen[-1]

    with pytest.raises(RunnerCrashedError):
        through_crashes(attempt, lambda: rows[len(fallen) - 1])
    assert len(fallen) == 3
    assert through_crashes(lambda: "done", lambda: 0) == "done"


@pytest.mark.parametrize("text", ["8081", "host", "host:", "host:a-b", "host:1-"])
def test_a_rest_address_is_a_host_and_ports(text):
    with pytest.raises(ContractError, match="not an address of Flink's REST interface"):
        rest_addresses(text)


@pytest.fixture
def bare(monkeypatch, tmp_path: Path) -> Path:
    """A machine without Prism and Go; returns its home."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(prism.shutil, "which", lambda name: None)
    return tmp_path


def test_a_prism_on_path_comes_before_the_cache(bare: Path, monkeypatch):
    prism_cache().parent.mkdir(parents=True)
    prism_cache().write_text("")
    assert find_prism() == prism_cache()
    monkeypatch.setattr(prism.shutil, "which", lambda name: "/opt/prism" if name == "prism" else None)
    assert find_prism() == Path("/opt/prism")


def test_without_prism_one_sentence_says_how_to_get_it(bare: Path):
    with pytest.raises(ContractError, match=r"^no Prism here: put prism of Beam \S+ on PATH or at .+, or install Go"):
        find_prism(build=False)


@pytest.mark.parametrize(
    ("go", "left"),
    [
        ("#!/bin/sh\ncp /bin/true $GOBIN/prism\n", ["lock", "prism"]),
        ("#!/bin/sh\necho go: no network >&2\nexit 1\n", ["lock"]),
    ],
    ids=["built", "failed"],
)
def test_prism_is_built_with_go_into_the_cache_whole_or_not_at_all(bare: Path, monkeypatch, caplog, go, left):
    compiler = bare / "go"
    compiler.write_text(go)
    compiler.chmod(0o755)
    monkeypatch.setattr(prism.shutil, "which", lambda name: str(compiler) if name == "go" else None)
    if "prism" in left:
        assert find_prism() == prism_cache()
        assert prism_cache().stat().st_mode & 0o111
    else:
        with pytest.raises(ContractError, match=r"^Prism cannot be built: go install .+ failed \(go: no network\)"):
            find_prism()
    assert sorted(path.name for path in prism_cache().parent.iterdir()) == left
    assert "two or three minutes" in caplog.text


def test_a_prism_that_ends_at_once_is_one_sentence(bare: Path, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(prism.shutil, "which", lambda name: "/bin/false" if name == "prism" else None)
    with pytest.raises(StoreError, match=r"^/bin/false: Prism does not come up on 127\.0\.0\.1:\d+; see .+prism\.log$"):
        Prism(log=tmp_path / "prism.log")
