"""Which Beam runner runs a flow: the only place that knows them."""

import re

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from contracts import errors
from contracts.errors import RocketError

#: The embedded default: bounded input, in this process. Never run event time in streaming on it.
EMBEDDED = "FnApiRunner"
_RAISED = re.compile(r"contracts\.errors\.(\w+): (.*?)(?: \[while running .*)?$", re.MULTILINE)


def bounded_pipeline() -> beam.Pipeline:
    """A pipeline for bounded input on the embedded runner.

    The runner is always named: without a name Beam looks for another one on the network first.
    """
    return beam.Pipeline(options=PipelineOptions(["--runner", EMBEDDED, "--no_save_main_session"]))


def run_to_end(pipeline: beam.Pipeline) -> PipelineResult:
    """Run it and wait.

    Raises:
        RocketError: the one that a node raised, as itself: Beam passes errors on as text.
    """
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except RocketError:
        raise
    except Exception as error:
        raise _as_raised(str(error)) or error from error
    return result


def _as_raised(text: str) -> RocketError | None:
    """The error that a worker's traceback ends with.

    >>> _as_raised("Traceback ... contracts.errors.ContractError: f: is missing [while running 'Read']")
    ContractError('f: is missing')
    """
    found = _RAISED.findall(text)
    if not found:
        return None
    name, message = found[-1]
    kind = getattr(errors, name, None)
    return kind(message) if isinstance(kind, type) and issubclass(kind, RocketError) else None


def counters(result: PipelineResult) -> dict[str, int]:
    """All counters of a finished run, by name, summed over steps."""
    found: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        name = counter.key.metric.name
        found[name] = found.get(name, 0) + int(counter.result or 0)
    return found
