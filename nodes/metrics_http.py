"""What a long-running command tells of itself over HTTP, on 127.0.0.1 alone.

    /metrics    Prometheus text, or OpenMetrics to who asks for that
    /healthz    200 while the loop ticks (`heartbeat`), 503 and the reason when it has stopped
    /readyz     200 once the command can do its work (`ready`), 503 and the reason until then

Neither Beam, torch nor Kafka is needed here: ingest, trainer and scorer use the same few calls.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from contracts.errors import ContractError

#: Seconds from 1 ms to a minute.
LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_CLIENT_TIMEOUT_S = 2.0  # for a client that connects and says nothing
_TEXT = "text/plain; charset=utf-8"


class Metrics:
    """Counters, gauges and histograms of one process, its heartbeat, and the server that tells them.

    Without `listen` it only counts, so a command need not ask whether anybody looks.

    Args:
        node: what runs here, such as "serve"; every metric's name begins with ctr_<node>_.
        alive_s: a loop that has not ticked for that long, and has not said that it may, is dead.
        clock_s: monotonic seconds.

    >>> with Metrics("demo") as metrics:
    ...     rows = metrics.counter("ctr_demo_rows_total", "Rows seen.", ["stream"])
    ...     rows.labels("clicks").inc(3)
    ...     metrics.text().splitlines()[2]
    'ctr_demo_rows_total{stream="clicks"} 3.0'
    """

    def __init__(self, node: str, *, alive_s: float = 10.0, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.node = node
        self.registry = CollectorRegistry()
        self._alive_s, self._clock_s = alive_s, clock_s
        self._beat = (clock_s(), 0.0, "")  # when, how long the step then begun may take, what is wrong
        self._unready = "starting"
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def counter(self, name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
        """A number that only grows; its name ends in _total."""
        return Counter(self._checked(name, "_total"), doc, labels, registry=self.registry)

    def gauge(self, name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
        """A number that goes up and down; `set_function` asks for it whenever somebody looks."""
        return Gauge(self._checked(name), doc, labels, registry=self.registry)

    def histogram(
        self, name: str, doc: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """How a quantity is spread over buckets, by their upper ends."""
        return Histogram(self._checked(name), doc, labels, buckets=buckets, registry=self.registry)

    def names(self) -> frozenset[str]:
        """Every name under which a sample can be asked for, `_bucket`, `_sum` and `_count` included."""
        return frozenset(
            name
            for family in self.registry.collect()
            if family.name.startswith("ctr_")
            for name in _SAMPLES[family.type](family.name)
        )

    def heartbeat(self, degraded: str = "", *, may_take_s: float = 0.0) -> None:
        """The loop ticks.

        Args:
            degraded: what does not work, while the loop goes on; still healthy, but told.
            may_take_s: the step that begins now may last that much longer than `alive_s`.
        """
        self._beat = (self._clock_s(), may_take_s, degraded)

    def ready(self, is_ready: bool, reason: str = "") -> None:  # noqa: FBT001
        """Whether the command can do its work, and if not, what it waits for."""
        self._unready = "" if is_ready else reason or "not ready"

    def health(self) -> tuple[bool, str]:
        """Whether the loop ticks, and a word on how."""
        at_s, may_take_s, degraded = self._beat
        silent_s = self._clock_s() - at_s
        if silent_s > self._alive_s + may_take_s:
            return False, f"the loop has not ticked for {silent_s:.0f} s" + (f": {degraded}" if degraded else "")
        return True, f"degraded: {degraded}" if degraded else "ok"

    def readiness(self) -> tuple[bool, str]:
        """Whether the command can do its work, and if not, why."""
        return not self._unready, self._unready or "ready"

    def text(self, accept: str = "") -> str:
        """All metrics as Prometheus reads them."""
        return choose_encoder(accept)[0](self.registry).decode()

    def listen(self, port: int) -> int:
        """Answer on 127.0.0.1 from now on, in a thread; returns the port.

        Args:
            port: 0 takes a free one.

        Raises:
            ContractError: the port is taken or not allowed.
        """
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        except (OSError, OverflowError) as error:
            raise ContractError(
                f"metrics cannot be told on 127.0.0.1:{port} ({getattr(error, 'strerror', None) or error}); "
                "give another port, or 0 for a free one"
            ) from None
        self._server.daemon_threads = False  # closing waits for who is being answered
        ProcessCollector(registry=self.registry)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """End the server and its threads."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, name: str, ending: str = "") -> str:
        if not re.fullmatch(rf"ctr_{self.node}_[a-z][a-z0-9_]*{ending}", name) or (
            not ending and name.endswith("_total")
        ):
            raise ValueError(f"{name}: a metric is named ctr_{self.node}_<noun>, a counter alone ends in _total")
        return name


_SAMPLES: dict[str, Callable[[str], Sequence[str]]] = {
    "counter": lambda name: [f"{name}_total"],
    "gauge": lambda name: [name],
    "histogram": lambda name: [f"{name}_bucket", f"{name}_sum", f"{name}_count"],
}


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET and HEAD."""

        timeout = _CLIENT_TIMEOUT_S
        server_version = "rocket"
        sys_version = ""

        def do_GET(self) -> None:
            """One of three pages."""
            self._tell(*self._page(), body=True)

        def do_HEAD(self) -> None:
            """The same without the page."""
            self._tell(*self._page(), body=False)

        def _page(self) -> tuple[int, str, str]:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                accept = self.headers.get("Accept", "")
                return 200, choose_encoder(accept)[1], metrics.text(accept)
            if path in ("/healthz", "/readyz"):
                good, why = metrics.health() if path == "/healthz" else metrics.readiness()
                return (200 if good else 503), _TEXT, f"{why}\n"
            return 404, _TEXT, "here are /metrics, /healthz and /readyz\n"

        def _tell(self, status: int, kind: str, page: str, *, body: bool) -> None:
            data = page.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: a probe each second is no news."""

    return Handler
