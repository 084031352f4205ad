"""The jobs of a Flink cluster: the options they take, which of them run, and ending those whose client is gone.

Beam's job server is only asked to be there: cancelled through it, a job of a local Flink runs on, and one
whose client was killed stays "running" in its books for ever. Flink's own REST interface ends both.
"""

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc  # type: ignore[import-untyped]  # comes with Beam, without types
from apache_beam.options.pipeline_options import PipelineOptions

from contracts.errors import ContractError, StoreError

_ENDED = frozenset({"FINISHED", "FAILED", "CANCELED"})
_ANSWER_S, _POLL_S = 5.0, 0.05
_END_OF_TIME = 9_223_371_950_454_775  #: the last millisecond that Beam knows


class FlinkOptions(PipelineOptions):
    """The job server's own options that a Python pipeline passes on; without this Beam warns of each."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--checkpointing_interval", type=int)
        parser.add_argument("--finish_bundle_before_checkpointing", action="store_true", default=None)
        parser.add_argument("--number_of_execution_retries", type=int)
        parser.add_argument("--execution_retry_delay", type=int)
        parser.add_argument("--flink_rest", help="Ours: host:port or host:from-to of Flink's REST interface.")


@dataclass(frozen=True, slots=True)
class Job:
    """A job as Flink names it."""

    id: str
    name: str
    state: str  #: RUNNING, RESTARTING, CANCELED, FAILED ...
    rest: str  #: host:port of the Flink that runs it

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in _ENDED


def rest_addresses(rest: str) -> list[tuple[str, int]]:
    """The addresses of Flink's REST interface; a local job server has a Flink, and so an address, a job.

    Raises:
        ContractError: neither host:port nor host:from-to.

    >>> rest_addresses("127.0.0.1:21000-21002")
    [('127.0.0.1', 21000), ('127.0.0.1', 21001), ('127.0.0.1', 21002)]
    """
    host, _, ports = rest.rpartition(":")
    first, dash, last = ports.partition("-")
    if not host or not first.isdigit() or (dash and not last.isdigit()):
        raise ContractError(f"{rest}: not an address of Flink's REST interface; give host:port, or host:from-to")
    return [(host, port) for port in range(int(first), int(last or first) + 1)]


def _ask(address: tuple[str, int], path: str, method: str = "GET") -> Any:
    """What it answers; None when nobody listens there."""
    connection = http.client.HTTPConnection(*address, timeout=_ANSWER_S)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def jobs(rest: str) -> list[Job]:
    """The jobs that are known at these addresses.

    Args:
        rest: host:port of a cluster, or host:from-to of a local job server, where silent ports mean no jobs.

    Raises:
        ContractError: not an address.
        StoreError: a cluster that does not answer.
    """
    found = []
    addresses = rest_addresses(rest)
    for address in addresses:
        told = _ask(address, "/jobs/overview")
        if told is None and len(addresses) == 1:
            raise StoreError(f"{rest}: no Flink answers there; check --flink-rest")
        name = f"{address[0]}:{address[1]}"
        found += [Job(job["jid"], job["name"], job["state"], name) for job in (told or {}).get("jobs", [])]
    return found


def cancel_jobs(rest: str, name: str, *, wait_s: float = 10.0) -> int:
    """End the jobs of that name that still run, and wait until they are over.

    Returns:
        How many there were.

    Raises:
        StoreError: the cluster does not answer, or a job does not end within the time.
    """
    until, asked = time.monotonic() + wait_s, set[str]()
    while running := [job for job in jobs(rest) if job.name == name and not job.ended]:
        for job in running:
            if job.id not in asked:
                _ask(rest_addresses(job.rest)[0], f"/jobs/{job.id}?mode=cancel", "PATCH")
                asked.add(job.id)
        if time.monotonic() > until:
            raise StoreError(f"{rest}: the Flink job '{name}' does not end; cancel it there, then start again")
        time.sleep(_POLL_S)
    return len(asked)


def reached_end(rest: str, name: str) -> bool:
    """Whether all that the running job of that name was to read has passed its last step.

    A Flink job does not end by itself when its input does, and its option that ends quiet sources loses input. Its
    watermarks tell: the output watermark of a step is the end of time when the step has given all that it ever will.
    """
    running = [job for job in jobs(rest) if job.name == name and job.state == "RUNNING"]
    if len(running) != 1:
        return False
    job = running[0]
    address = rest_addresses(job.rest)[0]
    steps = (_ask(address, f"/jobs/{job.id}") or {}).get("vertices", [])
    return bool(steps) and all(_is_over(address, job.id, step) for step in steps)


def _is_over(address: tuple[str, int], job_id: str, step: dict[str, Any]) -> bool:
    path = f"/jobs/{job_id}/vertices/{step['id']}/metrics"
    names = [metric["id"] for metric in _ask(address, path) or []]
    given = [name for name in names if name.endswith(".currentOutputWatermark")]
    if len({name.partition(".")[0] for name in given}) < step["parallelism"]:
        return False  # not all of its parallel parts have told
    told = _ask(address, f"{path}?get={quote(','.join(given))}") or []
    return len(told) == len(given) and all(int(metric["value"]) >= _END_OF_TIME for metric in told)


def check_job_server(endpoint: str, *, wait_s: float = _ANSWER_S) -> None:
    """Nothing when it answers.

    Args:
        endpoint: its host:port.
        wait_s: how long it may take.

    Raises:
        StoreError: it does not within the time.
    """
    channel = grpc.insecure_channel(endpoint)
    try:
        grpc.channel_ready_future(channel).result(timeout=wait_s)
    except grpc.FutureTimeoutError:
        raise StoreError(
            f"{endpoint}: no job server answers there; start one (rocket up --flink), or check --job-endpoint"
        ) from None
    finally:
        channel.close()
