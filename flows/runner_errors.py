"""What runners say of failures, turned into one error of ours and nothing else on the terminal."""

import logging
import re
import threading
from collections.abc import Callable
from typing import TypeVar

import grpc  # type: ignore[import-untyped]  # comes with Beam, without types
from apache_beam.runners.worker import sdk_worker

from contracts import errors
from contracts.errors import RocketError, RunnerCrashedError, StoreError

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_RAISED = re.compile(r"contracts\.errors\.(\w+): (.*?)(?: \[while running .*)?$", re.MULTILINE)
#: Prism 2.77 may ask for the progress of a stage that no worker runs, where it stood still for 100 ms.
_PANIC = re.compile(r"panic in [^\n:]+: [^\n,]+")
_WHILE = re.compile(r" \[while running '[^']*'\]$")
#: Beam says a failure several times, tracebacks included; the run raises it once, as one sentence.
_TALKERS = ("apache_beam.runners", "apache_beam.utils.subprocess_server")
_TOLD_BEFORE: list[Callable[[threading.ExceptHookArgs], object]] = []  # who was told of a thread's end, once we are


def as_rocket_error(error: BaseException, endpoint: str | None = None) -> RocketError:
    """What a runner told of a failure as one sentence: the node's own error where there is one."""
    text = str(error)
    if isinstance(error, RocketError):  # the embedded runner adds where
        told = _WHILE.sub("", text)
        return error if told == text else type(error)(told)
    if (raised := raised_in(text)) is not None:
        return raised
    if (panic := _PANIC.search(text)) is not None:
        return RunnerCrashedError(f"the runner fell over by a fault of its own ({panic.group()[:200]})")
    if isinstance(error, grpc.RpcError):
        said = error.details() or text
        return StoreError(f"{endpoint or 'the runner'}: it ended or cannot be reached any more ({_last_line(said)})")
    return StoreError(f"the runner failed: {_last_line(text)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it does not say why"


def raised_in(text: str) -> RocketError | None:
    """The error that a worker's traceback ends with.

    >>> raised_in("Traceback ... contracts.errors.ContractError: f: is missing [while running 'Read']")
    ContractError('f: is missing')
    """
    found = _RAISED.findall(text)
    if not found:
        return None
    name, message = found[-1]
    kind = getattr(errors, name, None)
    return kind(message) if isinstance(kind, type) and issubclass(kind, RocketError) else None


def through_crashes(attempt: Callable[[], T], rows: Callable[[], int]) -> T:
    """Attempt it again whenever the runner fell over and `rows` has grown since the last time.

    Raises:
        RunnerCrashedError: it fell over twice without a row between.
    """
    before = -1
    while True:
        try:
            return attempt()
        except RunnerCrashedError as error:
            if (now := rows()) <= before:
                raise
            before = now
            _LOG.warning("%s; going on with it from row %d", error, now)


def keep_quiet() -> None:
    """Beam's own account of a failure, and of starting and ending, stays out of the way of the one sentence."""
    for name in _TALKERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    vars(sdk_worker)["print"] = _say_nothing  # it prints each traceback on stderr beside reporting it to the runner
    if not _TOLD_BEFORE:
        _TOLD_BEFORE.append(threading.excepthook)
        threading.excepthook = _unless_hung_up
    root = logging.getLogger()
    if _not_a_job_message not in root.filters:
        root.addFilter(_not_a_job_message)


def _unless_hung_up(args: threading.ExceptHookArgs) -> None:
    """Threads of Beam's worker end with an error of gRPC when the runner hangs up: that is how every run ends."""
    if not issubclass(args.exc_type, grpc.RpcError):
        _TOLD_BEFORE[0](args)


def _say_nothing(*_: object, **__: object) -> None:
    """Instead of print."""


def _not_a_job_message(record: logging.LogRecord) -> bool:
    return record.module != "portable_runner"
