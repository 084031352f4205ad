"""What can be known of a Dataflow job before it is sent: its options, its graph, its coders, its size."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.transforms.environments import DockerEnvironment

from contracts.errors import ContractError, StoreError

_MOST_BYTES = 10_000_000  #: that Dataflow takes as one job
_KEYED = common_urns.primitives.GROUP_BY_KEY.urn
_PAR_DO = common_urns.primitives.PAR_DO.urn
_FALLBACK = "FastPrimitivesCoder"  #: of a type that nobody declared: it may pickle
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Graph:
    """A job that Dataflow would be sent."""

    steps: int  #: that do something; composites are not counted
    stateful: tuple[str, ...]  #: steps with state or timers
    keyed: tuple[str, ...]  #: steps that meet by key: those, and groupings
    undeclared: tuple[str, ...]  #: what steps give without a declared type: it may travel pickled
    proto_bytes: int
    streaming: bool

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def dataflow_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """A pipeline whose options Dataflow's own runner has checked, without asking the network.

    Raises:
        ContractError: one that a job needs is missing or wrong.
    """
    cloud = options.view_as(GoogleCloudOptions)
    needed = {
        "--project": cloud.project,
        "--region": cloud.region,
        "--temp_location": cloud.temp_location,
        "--sdk_container_image": options.view_as(WorkerOptions).sdk_container_image,
    }
    if missing := [name for name, value in needed.items() if not value]:
        raise ContractError(f"a Dataflow job needs {', '.join(missing)}; deploy/dataflow/README.md says what they are")
    quiet = logging.getLogger("apache_beam.options.pipeline_options")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # what it cannot ask offline is not the user's business
    try:
        return beam.Pipeline(options=options)
    except ValueError as error:
        told = str(error).replace("Pipeline has validations errors:", "").strip()
        raise ContractError(f"the options of the Dataflow job are wrong: {' '.join(told.split())}") from error
    finally:
        quiet.setLevel(level)


def check_reachable(urls: Sequence[str]) -> None:
    """Workers elsewhere can reach these.

    Args:
        urls: kafka://host:port,host:port/topic of sources and sinks; anything else is a path on this machine.

    Raises:
        ContractError: one that is only here.
    """
    for url in urls:
        if not url.startswith("kafka://"):
            raise ContractError(f"{url}: is on this machine, which Dataflow's workers do not see; give a kafka:// URL")
        for broker in urlsplit(url).netloc.split(","):
            host = broker.rpartition(":")[0].strip("[]")
            if host in _HERE:
                raise ContractError(
                    f"{url}: {host} is another machine for each of Dataflow's workers; give the brokers' own addresses"
                )


def check_graph(pipeline: beam.Pipeline) -> Graph:
    """Build the job as the Dataflow runner does, up to the request that would send it, and judge it.

    Raises:
        ContractError: two steps have one name, what meets by key has a key whose bytes may differ for equal keys, or
            the job is too large.
    """
    pipeline.visit(DataflowRunner.combinefn_visitor())
    pipeline.visit(DataflowRunner.side_input_visitor())
    image = pipeline.options.view_as(WorkerOptions).sdk_container_image
    proto, context = pipeline.to_runner_api(
        return_context=True, default_environment=DockerEnvironment.from_container_image(image)
    )
    steps = [transform for transform in proto.components.transforms.values() if not transform.subtransforms]
    if twice := [name for name, times in Counter(step.unique_name for step in steps).items() if times > 1]:
        raise ContractError(f"two steps are called '{twice[0]}'; a step's name is its identity: give each its own")
    keyed = list(_keyed(steps))
    for step in keyed:
        _check_key(step, proto, context)
    if (size := proto.ByteSize()) > _MOST_BYTES:
        raise ContractError(
            f"the job is {size:,} bytes and Dataflow takes {_MOST_BYTES:,}; name large inputs instead of holding them"
        )
    return Graph(
        steps=len(steps),
        stateful=tuple(sorted(step.unique_name for step in keyed if step.spec.urn == _PAR_DO)),
        keyed=tuple(sorted(step.unique_name for step in keyed)),
        undeclared=tuple(sorted(_undeclared(proto, context))),
        proto_bytes=size,
        streaming=bool(pipeline.options.view_as(StandardOptions).streaming),
    )


def _undeclared(proto: Any, context: Any) -> Iterator[str]:
    for given in proto.components.pcollections.values():
        if _FALLBACK in str(context.coders.get_by_id(given.coder_id)):
            yield given.unique_name


def _keyed(steps: list[Any]) -> Iterator[Any]:
    for step in steps:
        if step.spec.urn == _PAR_DO:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
            if payload.state_specs or payload.timer_family_specs:
                yield step
        elif step.spec.urn == _KEYED:
            yield step


def _check_key(step: Any, proto: Any, context: Any) -> None:
    for source in step.inputs.values():
        coder = context.coders.get_by_id(proto.components.pcollections[source].coder_id)
        if not coder.is_kv_coder():
            raise ContractError(f"step '{step.unique_name}' needs pairs; declare what the step before it gives")
        key_coder = coder.key_coder()
        if not key_coder.is_deterministic() or _FALLBACK in str(key_coder):
            raise ContractError(
                f"step '{step.unique_name}' meets by a key coded with {type(key_coder).__name__}, "
                "whose bytes may differ for equal keys; declare the key's type"
            )


def submit(pipeline: beam.Pipeline) -> str:
    """Send the job; returns the id under which Dataflow knows it.

    Raises:
        ContractError: the cloud's client is not installed here.
        StoreError: Dataflow refuses, or cannot be reached.
    """
    try:
        sent: Any = pipeline.run()
        return str(sent.job_id())
    except ImportError:
        raise ContractError("sending needs the cloud's client: pip install 'apache-beam[gcp]'") from None
    except Exception as error:
        raise StoreError(f"Dataflow does not take the job: {' '.join(str(error).split())[:500]}") from error
