"""Which Beam runner runs a flow: the only place that knows them."""

import contextlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import grpc  # type: ignore[import-untyped]  # comes with Beam, without types
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions
from apache_beam.runners.portability.prism_runner import PrismRunner
from apache_beam.runners.runner import PipelineResult

from contracts.app import App
from contracts.errors import ContractError, RocketError, RunnerCrashedError, StoreError, did_you_mean
from flows.flink import FlinkOptions, cancel_jobs, check_job_server, reached_end
from flows.prism import Prism
from flows.runner_errors import as_rocket_error, keep_quiet, raised_in

_LOG = logging.getLogger(__name__)
#: The embedded default: bounded input, in this process. Never run event time in streaming on it.
EMBEDDED = "FnApiRunner"
#: The runners of live flows by the names that users give.
LIVE = ("prism", "flink", "dataflow", "embedded")
_CANCEL_S, _END_POLL_S, _CRASH_S = 8.0, 0.5, 0.5
#: Beam's default of 60 s is also the deadline of the stream that tells how a run goes: a Prism run was lost after 60 s.
_JOB_SERVER_TIMEOUT_S = 10 * 365 * 86_400


def bounded_pipeline() -> beam.Pipeline:
    """A pipeline for bounded input on the embedded runner.

    The runner is always named: without a name Beam looks for another one on the network first.
    """
    return beam.Pipeline(options=PipelineOptions(["--runner", EMBEDDED, "--no_save_main_session"]))


def live_pipeline(
    runner: str,
    app: App,
    *,
    job_endpoint: str | None = None,
    job_name: str = "rocket",
    flink_rest: str | None = None,
    worker_pool: str | None = None,
    options: Sequence[str] = (),
) -> beam.Pipeline:
    """A pipeline that `start` runs: event time moves while the input still comes.

    Args:
        runner: "prism", "flink", "dataflow", or "embedded" for topics that end.
        app: its `flink` section says how Flink saves and restarts.
        job_endpoint: host:port of a running job server; a must for Flink, while Prism is started where it is needed.
        job_name: tells this job from others on the same cluster; an earlier one of that name is ended first.
        flink_rest: host:port of Flink's REST interface, or host:from-to, where jobs are cancelled; without it a
            cancelled Flink job may go on.
        worker_pool: host:port, as the cluster sees it, of a pool of Python workers; None runs nodes in this process,
            which a Flink cluster on other machines cannot reach.
        options: more of the runner's own, such as --project for Dataflow.

    Raises:
        ContractError: no such runner, or it needs what was not given.
    """
    if runner not in LIVE:
        raise ContractError(f"no runner '{runner}'; {did_you_mean(runner, LIVE)}")
    if runner == "flink" and job_endpoint is None:
        raise ContractError("the runner flink needs a job server: rocket up --flink, or --job-endpoint HOST:PORT")
    if runner == "embedded":
        flags = ["--runner", EMBEDDED]
    elif runner == "dataflow":
        flags = ["--runner", "DataflowRunner", "--streaming", f"--job_name={job_name}"]
    else:
        flags = [*_portable(runner, app, job_name), *_workers(worker_pool)]
        flags += [f"--job_server_timeout={_JOB_SERVER_TIMEOUT_S}"]
        flags += [f"--job_endpoint={job_endpoint}"] if job_endpoint is not None else []
        flags += [f"--flink_rest={flink_rest}"] if flink_rest is not None and runner == "flink" else []
    flags += ["--no_save_main_session", "--experiments=disable_logging_submission_environment"]  # that would run pip
    if runner == "dataflow":
        from flows.dataflow import dataflow_pipeline  # noqa: PLC0415  # what it imports, the others do not need

        return dataflow_pipeline(PipelineOptions([*flags, *options]))
    return beam.Pipeline(options=FlinkOptions([*flags, *options]))


def _portable(runner: str, app: App, job_name: str) -> list[str]:
    if runner == "prism":
        # A bundle that takes over 100 ms Prism would split, timers and all, and then fire them twice or late
        # (apache/beam issue 35771): on a busy machine rows came double, or after the log had passed them.
        return [
            "--runner=PrismRunner",
            "--streaming",
            f"--job_name={job_name}",
            "--experiments=prism_disable_sdf_split",
        ]
    flink = app.config.flink
    return [
        "--runner=PortableRunner",
        "--streaming",
        f"--job_name={job_name}",
        f"--parallelism={flink.parallelism}",
        f"--checkpointing_interval={round(flink.checkpoint_s * 1000)}",
        "--finish_bundle_before_checkpointing",  # without it, checkpoints of Python bundles lose the output
        f"--number_of_execution_retries={flink.restarts}",
        f"--execution_retry_delay={round(flink.restart_delay_s * 1000)}",
        # Never --shutdown_sources_after_idle_ms: it ends a job with success in the middle of its input.
    ]


def _workers(worker_pool: str | None) -> list[str]:
    if worker_pool is None:
        return ["--environment_type=LOOPBACK"]
    return ["--environment_type=EXTERNAL", f"--environment_config={worker_pool}"]


class Running:
    """A flow that runs: wait for it, cancel it, count what it counted."""

    def __init__(self, result: PipelineResult, prism: Prism | None, flink_job: tuple[str, str] | None) -> None:
        self._result, self._prism, self._flink_job = result, prism, flink_job
        self._error: BaseException | None = None
        self._cancelled = self._finished = False
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._until_end, name="runner", daemon=True)
        self._watch.start()
        if flink_job is not None:
            threading.Thread(target=self._until_end_of_input, name="input", daemon=True).start()

    def _until_end(self) -> None:
        try:
            self._result.wait_until_finish()
        except Exception as error:  # told by wait()
            self._error = error
        finally:
            self._ended.set()

    def _until_end_of_input(self) -> None:
        """A Flink job whose input has ended stays until it is cancelled."""
        if self._flink_job is None:
            return
        while not self._ended.wait(_END_POLL_S):
            with contextlib.suppress(StoreError):  # the cluster is gone: then the job's own state tells
                if reached_end(*self._flink_job) and not self._cancelled:
                    self._finished = True
                    cancel_jobs(*self._flink_job)
                    return

    @property
    def ended(self) -> bool:
        """Whether it ended, by itself or cancelled."""
        return self._ended.is_set()

    def wait(self, stop: threading.Event | None = None, *, poll_s: float = 0.1) -> bool:
        """Wait until it ends by itself, or until `stop` is set: then it is cancelled.

        Returns:
            True when it came to its end, False when it was cancelled.

        Raises:
            RunnerCrashedError: the runner failed, not the run.
            RocketError: it failed; the one that a node raised, as itself.
        """
        while not self._ended.wait(poll_s):
            if stop is not None and stop.is_set():
                self.cancel()
                return False
        if not (self._cancelled or self._finished) and self._error is not None:
            lost = isinstance(self._error, grpc.RpcError)
            if lost and self._prism is not None and self._prism.ended(_CRASH_S):
                raise RunnerCrashedError("Prism ended in the middle of the run") from self._error
            raise as_rocket_error(self._error) from self._error
        return not self._cancelled

    def cancel(self) -> None:
        """End it now; on Flink the job is cancelled too, or it would stay without its client."""
        self._cancelled = True
        if self._flink_job is not None:
            cancel_jobs(*self._flink_job)
        with contextlib.suppress(grpc.RpcError):  # the runner is gone, and its job with it
            self._result.cancel()
        self._ended.wait(_CANCEL_S)

    def counters(self) -> dict[str, int]:
        """All counters so far, by name."""
        return counters(self._result)

    def close(self) -> None:
        """Cancel what still runs, and end the Prism that was started for it; twice is once."""
        if not self.ended:
            self.cancel()
        if self._prism is not None:
            self._prism.stop()
        self._watch.join(_CANCEL_S)

    def __enter__(self) -> "Running":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def start(pipeline: beam.Pipeline, *, log: Path | None = None) -> Running:
    """Run a pipeline of `live_pipeline` without waiting for it (the embedded runner comes back at the end).

    Args:
        pipeline: wired.
        log: a file for the warnings of a Prism that is started here.

    Raises:
        RocketError: the runner cannot be started or reached, or refuses the job.
    """
    keep_quiet()
    portable, flink_job, prism = pipeline.options.view_as(PortableOptions), _flink_job(pipeline.options), None
    if isinstance(pipeline.runner, PrismRunner) and not portable.job_endpoint:
        prism = Prism(log=log)
        portable.job_endpoint = prism.endpoint
    elif portable.job_endpoint:
        check_job_server(portable.job_endpoint)
    try:
        if flink_job is not None and cancel_jobs(*flink_job):
            _LOG.warning("ended an earlier job '%s' on Flink that had lost its client", flink_job[1])
        return Running(pipeline.run(), prism, flink_job)
    except BaseException as error:
        if prism is not None:
            prism.stop()
        if not isinstance(error, Exception):
            raise
        raise as_rocket_error(error, portable.job_endpoint) from error


def _flink_job(options: PipelineOptions) -> tuple[str, str] | None:
    """Where a Flink job is cancelled, and its name."""
    rest = options.view_as(FlinkOptions).flink_rest
    return (rest, options.view_as(GoogleCloudOptions).job_name) if rest is not None else None


def run_to_end(pipeline: beam.Pipeline) -> PipelineResult:
    """Run it and wait.

    Raises:
        RocketError: the one that a node raised, as itself: Beam passes errors on as text.
    """
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except RocketError as error:
        raise as_rocket_error(error) from error
    except Exception as error:
        raise raised_in(str(error)) or error from error
    return result


def counters(result: PipelineResult) -> dict[str, int]:
    """All counters of a finished run, by name, summed over steps."""
    found: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        name = counter.key.metric.name
        found[name] = found.get(name, 0) + int(counter.result or 0)
    return found
