"""What should have become of every event, worked out again from the raw records: one event at a time, in plain Python.

Written from the rules (DESIGN.md, "Event time"), not from the flows' code, and sharing none of it: so that the two can
be compared. It knows labels of mode `wait`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import polars as pl
import polars_hash as plh
from jsonschema import Draft202012Validator

from contracts.app import App
from contracts.buckets import SEED
from contracts.columns import DataContract
from contracts.events import Fate
from contracts.jsonschema import json_schema

#: physical type of a column -> Python types that JSON gives it
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int,),
    "double": (float, int),
    "boolean": (bool,),
    "list<string>": (list,),
}


class Raw(NamedTuple):
    """One record as it lies in a partition."""

    offset: int
    value: bytes | None


class _Event(NamedTuple):
    at: int  # epoch milliseconds of event time
    tie: int  # hash of the bytes, which decides between rivals of one time
    origin: str
    offset: int
    name: str  # of the impression, or of the click
    of: str  # the impression that it belongs to


@dataclass
class Truth:
    """What the rules say of the records that were read."""

    fates: dict[tuple[str, str, int], str] = field(default_factory=dict)  #: (stream, origin, offset) -> fate
    labels: dict[tuple[str, int], int] = field(default_factory=dict)  #: (impression id, event time) -> 0 or 1
    unreadable: int = 0  #: not refused by the flow, yet no event

    def read(self, stream: str) -> dict[str, int]:
        """How many events of a stream met each fate."""
        return dict(Counter(fate for (of, _, _), fate in self.fates.items() if of == stream))


def truth(
    app: App, records: Mapping[tuple[str, str], Iterable[Raw]], dead: set[tuple[str, int]] | frozenset[tuple[str, int]]
) -> Truth:
    """Join the records by the rules.

    Args:
        app: its contracts' roles, its `ingest` and `labels` settings.
        records: (stream, origin) -> the records of a partition, in order of offset.
        dead: (origin, offset) of those that the flow refused; whether it was right is `wrongly_refused`'s question.

    Raises:
        ValueError: the app's label mode is another than `wait`.

    >>> from contracts.app import load_app
    >>> shown = b'{"impression_id": "a", "event_time_ms": 1767571200000}'
    >>> clicked = b'{"click_id": "c", "impression_id": "a", "event_time_ms": 1767571201000}'
    >>> records = {("impressions", "i:0"): [Raw(0, shown), Raw(1, shown)], ("clicks", "c:0"): [Raw(0, clicked)]}
    >>> found = truth(load_app("adsim"), records, set())
    >>> found.labels, found.read("impressions")
    ({('a', 1767571200000): 1}, {'accepted': 1, 'duplicate': 1})
    """
    labels, ingest = app.config.labels, app.config.ingest
    if labels.mode != "wait":
        raise ValueError(f"an audit knows label mode 'wait', not '{labels.mode}'")
    wait_ms, disorder_ms = round(labels.wait_s * 1000), round(ingest.disorder_s * 1000)
    dedupe_ms = max(wait_ms, round(labels.dedupe_s * 1000))
    found = Truth()
    events: dict[str, list[_Event]] = {"impressions": [], "clicks": []}
    for (stream, origin), lying in records.items():
        events[stream] += _in_time(app, stream, origin, lying, dead, disorder_ms, found)
    accepted = _accept(events["impressions"], dedupe_ms, found)
    _click(events["clicks"], accepted, wait_ms, dedupe_ms, disorder_ms, found)
    return found


def keeps_contract(app: App, stream: str, value: bytes | None) -> bool:
    """Whether a record is an event that no flow may refuse: by the contract's JSON Schema, size and bounds of time.

    >>> from contracts.app import load_app
    >>> keeps_contract(load_app("adsim"), "clicks", b'{"click_id": "c"}')
    False
    """
    contract = app.impressions if stream == "impressions" else app.clicks
    event, ingest = _parsed(value), app.config.ingest
    if event is None or not _whole(event, contract) or len(value or b"") > ingest.max_event_bytes:
        return False
    at = event[contract.role("event_time")]
    first_ms, last_ms = ingest.event_times_ms
    if not first_ms <= at <= last_ms:
        return False
    return bool(_validator(contract).is_valid(event))


@lru_cache(maxsize=8)
def _validator(contract: DataContract) -> Any:
    return Draft202012Validator(json_schema(contract))


def _in_time(
    app: App,
    stream: str,
    origin: str,
    lying: Iterable[Raw],
    dead: set[tuple[str, int]] | frozenset[tuple[str, int]],
    disorder_ms: int,
    found: Truth,
) -> list[_Event]:
    """The events of a partition that are not late; the fates of the others."""
    contract = app.impressions if stream == "impressions" else app.clicks
    name = contract.role("impression_id" if stream == "impressions" else "click_id")
    of, at = contract.role("impression_id"), contract.role("event_time")
    ingest = app.config.ingest
    first_ms, last_ms = ingest.event_times_ms
    newest: int | None = None
    kept, values = [], []
    for offset, value in lying:
        refused = (origin, offset) in dead
        event = _parsed(value)
        stamp = event.get(at) if event is not None else None
        time_ms = stamp if type(stamp) is int else -1
        plausible = first_ms <= time_ms <= last_ms
        if refused:
            found.fates[stream, origin, offset] = Fate.DEAD_LETTERED.value
        elif event is None or not plausible or not isinstance(event.get(name), str):
            found.unreadable += 1
        elif newest is not None and time_ms < newest - disorder_ms:
            found.fates[stream, origin, offset] = Fate.LATE.value
        else:
            kept.append((time_ms, offset, event[name], event[of]))
            values.append(value)
        # a record that breaks another rule of the contract still tells the time, if it can be read at all
        seen = not refused or (len(value or b"") <= ingest.max_event_bytes and _whole(event, contract))
        if plausible and seen:
            newest = time_ms if newest is None else max(newest, time_ms)
    ties = pl.DataFrame({"raw": pl.Series(values, dtype=pl.Binary)}).select(plh.col("raw").nchash.xxhash64(seed=SEED))
    return [
        _Event(time_ms, tie, origin, offset, known, whose)
        for (time_ms, offset, known, whose), tie in zip(kept, ties["raw"].to_list(), strict=True)
    ]


def _parsed(value: bytes | None) -> dict[str, Any] | None:
    try:
        event = json.loads((value or b"").decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _whole(event: dict[str, Any] | None, contract: DataContract) -> bool:
    """Whether it has the types of its columns: only then was it decoded, and its time seen."""
    columns = {column.name: column for column in contract.columns}
    if event is None or not set(event) <= set(columns):
        return False
    for name, column in columns.items():
        value = event.get(name)
        if value is None:
            fits = not column.required
        else:
            fits = type(value) in _TYPES[column.physical] and (type(value) is not int or -(2**63) <= value < 2**63)
        if not fits:
            return False
    return True


def _accept(impressions: list[_Event], dedupe_ms: int, found: Truth) -> dict[str, list[_Event]]:
    """The accepted impressions of each id, oldest first."""
    accepted: dict[str, list[_Event]] = {}
    for event in sorted(impressions):
        before = accepted.setdefault(event.of, [])
        fate = Fate.ACCEPTED
        if before and event.at <= before[-1].at + dedupe_ms:
            fate = Fate.DUPLICATE
        else:
            before.append(event)
            found.labels[event.of, event.at] = 0
        found.fates["impressions", event.origin, event.offset] = fate.value
    return accepted


def _click(
    clicks: list[_Event],
    accepted: dict[str, list[_Event]],
    wait_ms: int,
    dedupe_ms: int,
    disorder_ms: int,
    found: Truth,
) -> None:
    for event in sorted(clicks):
        shown = [one for one in accepted.get(event.of, []) if one.at <= event.at + disorder_ms]
        if not shown or event.at > shown[-1].at + dedupe_ms:
            fate = Fate.ORPHAN
        elif event.at > shown[-1].at + wait_ms:
            fate = Fate.LATE
        elif found.labels[event.of, shown[-1].at]:
            fate = Fate.DUPLICATE
        else:
            fate = Fate.ACCEPTED
            found.labels[event.of, shown[-1].at] = 1
        found.fates["clicks", event.origin, event.offset] = fate.value
