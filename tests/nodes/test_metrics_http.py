"""Metrics, health and readiness of a long-running command, over real HTTP on this machine."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from contracts.errors import ContractError
from nodes.metrics_http import Metrics


class Clock:
    """Monotonic seconds, set by hand."""

    at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Iterator[Metrics]:
    with Metrics("demo", alive_s=5, clock_s=clock) as made:
        made.port = made.listen(0)  # type: ignore[attr-defined]
        yield made


def get(metrics: Metrics, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type, page."""
    asked = urllib.request.Request(f"http://127.0.0.1:{metrics.port}{path}", headers=headers)  # type: ignore[attr-defined]
    try:
        with urllib.request.urlopen(asked, timeout=5) as got:
            return got.status, got.headers["Content-Type"], got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_what_was_counted_is_told_in_both_formats(metrics: Metrics) -> None:
    metrics.counter("ctr_demo_rows_total", "Rows.", ["stream"]).labels("clicks").inc(3)
    metrics.gauge("ctr_demo_lag_records", "Behind.").set_function(lambda: 7)
    metrics.histogram("ctr_demo_step_seconds", "A step.").observe(0.004)
    for accept, parse in (("", prometheus), ("application/openmetrics-text; version=1.0.0", open_metrics)):
        status, kind, page = get(metrics, "/metrics", Accept=accept)
        found = {(s.name, *s.labels.values()): s.value for f in parse(page) for s in f.samples}
        assert status == 200
        assert kind.startswith(accept.partition(";")[0] or "text/plain")
        assert found["ctr_demo_rows_total", "clicks"] == 3
        assert found["ctr_demo_lag_records",] == 7
        assert (found["ctr_demo_step_seconds_bucket", "0.002"], found["ctr_demo_step_seconds_bucket", "0.005"]) == (
            0,
            1,
        )
    assert "process_resident_memory_bytes" in page


def test_two_of_them_in_one_process_share_nothing() -> None:
    with Metrics("demo") as one, Metrics("demo") as other:
        one.counter("ctr_demo_rows_total", "Rows.").inc()
        other.counter("ctr_demo_rows_total", "Rows.")
        assert "ctr_demo_rows_total 1.0" in one.text()
        assert "ctr_demo_rows_total 0.0" in other.text()


def test_health_follows_the_heartbeat(metrics: Metrics, clock: Clock) -> None:
    assert get(metrics, "/healthz")[::2] == (200, "ok\n")
    clock.at_s = 6
    assert get(metrics, "/healthz")[::2] == (503, "the loop has not ticked for 6 s\n")
    metrics.heartbeat("the broker is away")
    assert get(metrics, "/healthz")[::2] == (200, "degraded: the broker is away\n")
    clock.at_s = 12
    assert get(metrics, "/healthz")[::2] == (503, "the loop has not ticked for 6 s: the broker is away\n")
    metrics.heartbeat(may_take_s=10)
    clock.at_s = 26
    assert get(metrics, "/healthz")[0] == 200
    clock.at_s = 28
    assert get(metrics, "/healthz")[0] == 503


def test_ready_is_said_by_the_command(metrics: Metrics) -> None:
    assert get(metrics, "/readyz")[::2] == (503, "starting\n")
    metrics.ready(False, "no partition yet")
    assert get(metrics, "/readyz")[::2] == (503, "no partition yet\n")
    metrics.ready(True)
    assert get(metrics, "/readyz?x=1")[::2] == (200, "ready\n")


def test_other_pages_are_not_here(metrics: Metrics) -> None:
    status, _, page = get(metrics, "/")
    assert (status, "/metrics" in page) == (404, True)


def test_a_port_that_is_taken_is_refused_in_one_sentence(metrics: Metrics) -> None:
    port = metrics.port  # type: ignore[attr-defined]
    with Metrics("demo") as other, pytest.raises(ContractError, match=f"127.0.0.1:{port} .*give another port"):
        other.listen(port)


def test_closing_ends_the_threads_though_a_client_hangs_on_the_line(metrics: Metrics) -> None:
    with socket.create_connection(("127.0.0.1", metrics.port)):  # type: ignore[attr-defined]
        get(metrics, "/healthz")
        metrics.close()
    assert [thread.name for thread in threading.enumerate() if thread.name == "metrics"] == []


@pytest.mark.parametrize("name", ["rows_total", "ctr_train_rows_total", "ctr_demo_rows", "ctr_demo_Rows_total"])
def test_names_keep_the_convention(name: str) -> None:
    with Metrics("demo") as metrics, pytest.raises(ValueError, match="ctr_demo_<noun>"):
        metrics.counter(name, "Rows.")


def test_the_names_that_a_dashboard_may_ask_for() -> None:
    with Metrics("demo") as metrics:
        metrics.counter("ctr_demo_rows_total", "Rows.", ["stream"])
        metrics.histogram("ctr_demo_step_seconds", "A step.")
        metrics.gauge("ctr_demo_lag_records", "Behind.")
        assert metrics.names() == {
            "ctr_demo_rows_total",
            "ctr_demo_lag_records",
            *(f"ctr_demo_step_seconds_{part}" for part in ("bucket", "sum", "count")),
        }
