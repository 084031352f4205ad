"""Prism, the runner for one machine: event time moves while the input comes, and nothing of it stays behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import apache_beam as beam
import psutil
import pytest

from contracts.errors import ContractError, RunnerCrashedError
from flows.prism import Prism
from flows.runners import live_pipeline, start
from nodes.join_clicks import JoinClicks
from nodes.slots import Slots
from tests.endless_chunks import APP, KEPT, Keep, ReadChunks, became, expected, traffic

pytestmark = pytest.mark.e2e


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_has_more_threads_than_bundles_that_spin():
    with Prism() as prism:
        assert int(psutil.Process(prism.pid).environ()["GOMAXPROCS"]) >= 4


def test_slots_settle_as_the_oracle_says_and_the_run_ends_by_itself():
    events, key = traffic(200), uuid.uuid4().hex
    pipeline = live_pipeline("prism", APP)
    settled = pipeline | ReadChunks(events) | "Join" >> JoinClicks(APP, Slots(5_000))
    _ = settled | "Keep" >> beam.ParDo(Keep(key))
    with start(pipeline) as running:
        assert running.wait()
        counted = running.counters()
    parts = KEPT.pop(key)
    assert len(parts) >= 10, f"settled {len(parts)} times"
    assert became(parts) == expected(events)
    rows = sum(1 for fate in expected(events)[1] if fate[0] == "impressions" and fate[2] == "accepted")
    assert counted["ctr_join_impressions_accepted_total"] == rows


def test_a_run_without_end_is_cancelled_when_told_and_its_prism_is_gone():
    events, key = traffic(60), uuid.uuid4().hex
    pipeline = live_pipeline("prism", APP)
    settled = pipeline | ReadChunks(events, endless=True) | "Join" >> JoinClicks(APP, Slots(5_000))
    _ = settled | "Keep" >> beam.ParDo(Keep(key))
    stop = threading.Event()
    with start(pipeline) as running:
        until = time.monotonic() + 20
        while not KEPT[key] and time.monotonic() < until:
            time.sleep(0.05)
        assert KEPT.pop(key)
        stop.set()
        told = time.monotonic()
        assert not running.wait(stop)
        assert time.monotonic() - told < 5
        prism = running._prism
    assert not prism.alive
    assert not alive(prism.pid)


def fail(element):
    raise ContractError("part-7: is broken; mend it")


def test_the_error_of_a_node_comes_out_as_itself_and_once(caplog, capfd):
    pipeline = live_pipeline("prism", APP)
    _ = pipeline | beam.Create([1], reshuffle=False) | "Fail" >> beam.Map(fail)
    with (
        caplog.at_level(logging.WARNING),
        start(pipeline) as running,
        pytest.raises(ContractError, match=r"^part-7: is broken; mend it$"),
    ):
        running.wait()
    assert [record.getMessage()[:200] for record in caplog.records] == []
    assert capfd.readouterr() == ("", "")


def test_a_prism_that_dies_in_a_run_is_one_sentence(capfd):
    key = uuid.uuid4().hex
    pipeline = live_pipeline("prism", APP)
    _ = pipeline | ReadChunks(traffic(30), endless=True) | "Keep" >> beam.ParDo(Keep(key))
    with start(pipeline) as running:
        until = time.monotonic() + 20
        while not KEPT[key] and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(running._prism.pid, signal.SIGKILL)
        with pytest.raises(RunnerCrashedError, match=r"^Prism ended in the middle of the run$"):
            running.wait()
    KEPT.pop(key)
    assert capfd.readouterr() == ("", "")


def test_a_killed_client_takes_its_prism_with_it(tmp_path: Path):
    code = "import time; from flows.prism import Prism; p = Prism(); print(p.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        pid = int(client.stdout.readline())
        assert alive(pid)
        client.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pid)


def test_it_starts_in_a_moment_and_stops_at_once():
    began = time.monotonic()
    with Prism() as prism:
        assert prism.alive
        assert time.monotonic() - began < 3
    assert not alive(prism.pid)
