"""Flink behind Beam's job server: exact over slots and over failures, and cancelled for good."""

import subprocess
import sys
import threading
import time
import uuid

import apache_beam as beam
import pytest

from contracts.app import load_app
from contracts.errors import ContractError, StoreError
from deploy.local.flink import FlinkJobServer
from flows.flink import cancel_jobs, check_job_server, jobs
from flows.runners import live_pipeline, start
from nodes.chunks import Chunk
from nodes.join_clicks import JoinClicks
from nodes.slots import Slots
from tests.endless_chunks import APP, KEPT, Keep, ReadChunks, became, expected, traffic

pytestmark = pytest.mark.e2e


def wait_for(found, within_s: float = 40) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if found():
            return True
        time.sleep(0.1)
    return False


def flink_pipeline(server: FlinkJobServer, app=APP, name: str | None = None) -> beam.Pipeline:
    return live_pipeline(
        "flink", app, job_endpoint=server.endpoint, flink_rest=server.rest, job_name=name or uuid.uuid4().hex
    )


class FailOnce(beam.DoFn):
    """Lets everything through; at the `at`-th element of this process it fails, once."""

    def __init__(self, key: str, at: int) -> None:
        self._key, self._at = key, at

    def process(self, element):
        KEPT[self._key].append(1)
        if len(KEPT[self._key]) == self._at:
            raise RuntimeError("planted")
        yield element


def test_slots_settle_as_the_oracle_says(flink: FlinkJobServer):
    events, key, stop = traffic(100), uuid.uuid4().hex, threading.Event()
    pipeline = flink_pipeline(flink)
    settled = pipeline | ReadChunks(events, bundle=50) | "Join" >> JoinClicks(APP, Slots(5_000))
    _ = settled | "Keep" >> beam.ParDo(Keep(key))
    with start(pipeline) as running:
        assert wait_for(lambda: KEPT[key] and became(KEPT[key]) == expected(events))
        stop.set()
        assert not running.wait(stop)
    assert became(KEPT.pop(key)) == expected(events)  # and nothing came after that


def once(key: str) -> tuple[list, list]:
    examples, fates = became(KEPT[key])
    return sorted(set(examples)), sorted(set(fates), key=str)


def test_after_a_failure_it_goes_on_from_its_checkpoint_and_nothing_is_missing_or_wrong(flink: FlinkJobServer):
    """What was settled after the checkpoint comes again, equal: who writes it compares and skips."""
    events, key, fails = traffic(100, seed=4), uuid.uuid4().hex, uuid.uuid4().hex
    pipeline, fail_once = flink_pipeline(flink), beam.ParDo(FailOnce(fails, at=8)).with_output_types(Chunk)
    settled = pipeline | ReadChunks(events, bundle=4) | "Fail" >> fail_once | "Join" >> JoinClicks(APP, Slots(5_000))
    _ = settled | "Keep" >> beam.ParDo(Keep(key))
    with start(pipeline) as running:
        assert wait_for(lambda: KEPT[key] and once(key) == expected(events), 60)
        assert not running.ended
    assert len(KEPT.pop(fails)) > 8
    assert once(key) == expected(events)
    KEPT.pop(key)


def fail(element):
    raise ContractError("part-7: is broken; mend it")


def test_the_error_of_a_node_comes_out_as_itself_when_no_restart_is_left(flink: FlinkJobServer, capfd):
    app = load_app("adsim", {"flink": {"restarts": 0}})
    pipeline = flink_pipeline(flink, app)
    _ = pipeline | beam.Create([1], reshuffle=False) | "Fail" >> beam.Map(fail)
    with start(pipeline) as running, pytest.raises(ContractError, match=r"^part-7: is broken; mend it$"):
        running.wait()
    assert capfd.readouterr() == ("", "")


def test_a_new_run_ends_the_one_that_had_its_name(flink: FlinkJobServer):
    name, key = uuid.uuid4().hex, uuid.uuid4().hex

    def run():
        pipeline = flink_pipeline(flink, name=name)
        chunks = pipeline | ReadChunks(traffic(30), endless=True, bundle=50)
        _ = chunks | "Keep" >> beam.ParDo(Keep(key))
        return start(pipeline)

    def states() -> list[str]:
        return sorted(job.state for job in jobs(flink.rest) if job.name == name)

    with run() as first:
        assert wait_for(lambda: KEPT[key])
        with run() as second:
            assert wait_for(lambda: first.ended)
            assert not second.ended
            assert wait_for(lambda: states() == ["RUNNING"])
            assert cancel_jobs(flink.rest, name) == 1
    KEPT.pop(key)
    assert states() == []


def test_an_address_where_nobody_listens_is_one_sentence(flink: FlinkJobServer):
    with pytest.raises(StoreError, match=r"no job server answers there; start one \(rocket up --flink\)"):
        check_job_server("127.0.0.1:1", wait_s=0.3)
    with pytest.raises(StoreError, match="no Flink answers there"):
        jobs("127.0.0.1:1")
    assert jobs(flink.rest) == [job for job in jobs(flink.rest) if job.name]


def test_the_server_outlives_who_started_it_and_is_found_again(flink: FlinkJobServer):
    code = (
        "import sys; from pathlib import Path; from deploy.local.flink import FlinkJobServer\n"
        "found = FlinkJobServer(Path(sys.argv[1])); print(found.start(), found.pid, found.endpoint)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(flink.folder)], capture_output=True, text=True)
    assert done.stdout.split() == ["False", str(flink.pid), flink.endpoint], done.stderr
