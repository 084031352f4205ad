"""A source without end in memory, and a place where what a flow made can be looked at, for tests of runners."""

import random
from collections import defaultdict

import apache_beam as beam
import polars as pl
from apache_beam.coders import Coder
from apache_beam.io.unbounded_source import CheckpointMark, ReadFromUnboundedSource, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from contracts.app import load_app
from nodes.chunks import Chunk, ChunkCoder
from nodes.join import Settled
from tests.nodes.join_oracle import Event, frame, oracle

WAIT_S, DEDUPE_S, DISORDER_S = 10, 25, 4
APP = load_app(
    "adsim",
    {
        "labels": {"wait_s": WAIT_S, "dedupe_s": DEDUPE_S},
        "ingest": {"disorder_s": DISORDER_S, "shards": 2},
        "flink": {"checkpoint_s": 0.2},  # a reader that waits is asked again once a checkpoint
    },
)
#: What nodes in this process have kept, by the key of the test; a worker elsewhere would keep it elsewhere.
KEPT: dict[str, list] = defaultdict(list)
_SETTLES_BY_MS = 40_000  # after the last event, in steps, so that the last timers are not late
_CODER = ChunkCoder()


def traffic(impressions: int, seed: int = 3) -> list[Event]:
    """Impressions with repeats, and clicks early, in time and too late."""
    draw = random.Random(seed)
    ids = max(1, impressions // 3)
    span = impressions * 300
    shown = [("impressions", f"i{draw.randrange(ids)}", draw.randrange(span)) for _ in range(impressions)]
    clicked = [("clicks", name, at + draw.randrange(-4_000, 14_000)) for _, name, at in shown[::2]]
    rows = sorted([*shown, *clicked], key=lambda row: row[2])
    return [Event(stream, line, name, at, draw.randrange(2)) for line, (stream, name, at) in enumerate(rows)]


def expected(events: list[Event]) -> tuple[list, list]:
    """Examples and fates by the oracle."""
    examples, fates = oracle(events, WAIT_S * 1000, DEDUPE_S * 1000, DISORDER_S * 1000)
    return sorted(examples), sorted(((*key, *value) for key, value in fates.items()), key=str)


def became(parts: list[Settled]) -> tuple[list, list]:
    """The same of what a flow settled."""
    examples, fates = pl.concat([p.examples for p in parts]), pl.concat([p.fates for p in parts])
    rows = examples.select("impression_id", "event_time_ms", "_hash", "label").rows()
    return sorted(rows), sorted(fates.select("stream", "line", "fate", "reason").rows(), key=str)


class Keep(beam.DoFn):
    """Keeps each element under a key, in this process."""

    def __init__(self, key: str) -> None:
        self._key = key

    def process(self, element):
        KEPT[self._key].append(element)
        yield from ()


class _Mark(CheckpointMark):
    def __init__(self, position: int) -> None:
        self.position = position


class _MarkCoder(Coder):
    def encode(self, value: _Mark) -> bytes:
        return value.position.to_bytes(8, "big")

    def decode(self, encoded: bytes) -> _Mark:
        return _Mark(int.from_bytes(encoded, "big"))

    def is_deterministic(self) -> bool:
        return True


class EndlessChunks(UnboundedSource):
    """Events in chunks of `step_ms` of event time; then the watermark goes on, to the end unless it is `endless`."""

    def __init__(self, events: list[Event], step_ms: int = 5_000, *, endless: bool = False) -> None:
        first, last = min(e.at for e in events), max(e.at for e in events)
        self.steps: list[tuple[int, bytes | None]] = []  # smallest event time from here on, and a chunk if there is one
        for start in range(first, last + 1, step_ms):
            for stream in ("impressions", "clicks"):
                rows = [e for e in events if e.stream == stream and start <= e.at < start + step_ms]
                if rows:
                    self.steps.append((start, _CODER.encode(Chunk(stream, frame(rows, APP)))))
        self.steps += [(at, None) for at in range(last + 1, last + _SETTLES_BY_MS, step_ms)]
        self.endless = endless

    def split(self, desired_num_splits, options=None):
        return [self]

    def create_reader(self, options, checkpoint_mark):
        return _Reader(self, checkpoint_mark.position if checkpoint_mark else 0)

    def get_checkpoint_mark_coder(self) -> Coder:
        return _MarkCoder()

    def default_output_coder(self) -> Coder:
        return ChunkCoder()


class _Reader(UnboundedReader):
    """Stands before step `_next`; a step without a chunk moves the watermark only."""

    def __init__(self, source: EndlessChunks, position: int) -> None:
        self._source, self._next = source, position

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        if self._next >= len(self._source.steps):
            return False
        self._next += 1
        return self._source.steps[self._next - 1][1] is not None

    def get_current(self) -> Chunk:
        return _CODER.decode(self._source.steps[self._next - 1][1])

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=self._source.steps[self._next - 1][0] * 1000)

    def get_watermark(self) -> Timestamp:
        steps = self._source.steps
        if self._next < len(steps) or self._source.endless:
            return Timestamp(micros=steps[max(0, self._next - 1)][0] * 1000)
        return MAX_TIMESTAMP if steps[-1][1] is None else Timestamp(micros=steps[-1][0] * 1000)

    def get_checkpoint_mark(self) -> _Mark:
        return _Mark(self._next)


class ReadChunks(beam.PTransform):
    """Reads `EndlessChunks` in small bundles, without a pause."""

    def __init__(self, events: list[Event], *, endless: bool = False, bundle: int = 4) -> None:
        super().__init__()
        self._source, self._bundle = EndlessChunks(events, endless=endless), bundle

    def expand(self, begin):
        return begin | ReadFromUnboundedSource(self._source, poll_interval=0.02, max_records_per_bundle=self._bundle)
