"""The join, one event at a time in plain Python, written from the rules and not from the code."""

from dataclasses import dataclass

import polars as pl

from contracts.app import App
from contracts.events import ORIGIN


@dataclass(frozen=True)
class Event:
    stream: str
    line: int
    impression_id: str
    at: int
    payload: int  # stands for the bytes: equal payloads have equal hashes
    late: bool = False

    @property
    def order(self) -> tuple[int, int, int]:
        return self.at, self.payload, self.line


def mark_late(events: list[Event], disorder_ms: int) -> list[Event]:
    """Events of one file in the order of the file, with what lies too far behind marked."""
    marked, newest = [], None
    for event in events:
        late = newest is not None and event.at < newest - disorder_ms
        marked.append(Event(event.stream, event.line, event.impression_id, event.at, event.payload, late))
        newest = event.at if newest is None else max(newest, event.at)
    return marked


def oracle(events: list[Event], wait_ms: int, dedupe_ms: int, disorder_ms: int):
    """Examples {(impression_id, at, payload, label)} and fates {(stream, line): (fate, reason)}."""
    dedupe_ms = max(wait_ms, dedupe_ms)
    fates, accepted, winners = {}, {}, {}
    for event in events:
        if event.late:
            fates[event.stream, event.line] = ("late", "behind_disorder")
    for event in sorted((e for e in events if e.stream == "impressions" and not e.late), key=lambda e: e.order):
        earlier = accepted.setdefault(event.impression_id, [])
        if earlier and event.at <= earlier[-1].at + dedupe_ms:
            same = event.payload == earlier[-1].payload
            fates["impressions", event.line] = ("duplicate", "same_payload" if same else "other_payload")
        else:
            earlier.append(event)
            fates["impressions", event.line] = ("accepted", None)
    for event in sorted((e for e in events if e.stream == "clicks" and not e.late), key=lambda e: e.order):
        before = [shown for shown in accepted.get(event.impression_id, []) if shown.at <= event.at + disorder_ms]
        if not before or event.at > before[-1].at + dedupe_ms:
            fates["clicks", event.line] = ("orphan", "no_impression")
        elif event.at > before[-1].at + wait_ms:
            fates["clicks", event.line] = ("late", "after_wait")
        elif before[-1] in winners:
            fates["clicks", event.line] = ("duplicate", "repeated_click")
        else:
            winners[before[-1]] = event
            fates["clicks", event.line] = ("accepted", None)
    examples = {
        (shown.impression_id, shown.at, shown.payload, int(shown in winners))
        for group in accepted.values()
        for shown in group
    }
    return examples, fates


def frame(events: list[Event], app: App) -> pl.DataFrame:
    """Events of one stream as the chunk that the source would give."""
    contract = app.impressions if events[0].stream == "impressions" else app.clicks
    rows = [
        {
            "impression_id": event.impression_id,
            "event_time_ms": event.at,
            "click_id": f"c{event.line}",
            "user_id": f"u{event.payload}",
            "_origin": event.stream,
            "_line": event.line,
            "_hash": event.payload,
            "_late": event.late,
        }
        for event in events
    ]
    schema = contract.schema_ | ORIGIN
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def log_rows(events: list[Event], mode: str, wait_ms: int, observe_ms: int, dedupe_ms: int, disorder_ms: int):
    """Rows {(impression_id, at, payload, log_ms, role, label, elapsed_s)} that a label mode tells the log."""
    _, fates = oracle(events, wait_ms, dedupe_ms, disorder_ms)
    kept = [e for e in events if fates[e.stream, e.line][0] == "accepted"]
    shown = sorted((e for e in kept if e.stream == "impressions"), key=lambda e: e.order)
    rows = set()
    for one in shown:
        later = [o.at for o in shown if o.impression_id == one.impression_id and o.at > one.at]
        until = min(later) - disorder_ms if later else one.at + wait_ms + 1
        clicks = [
            e.at
            for e in kept
            if e.stream == "clicks" and e.impression_id == one.impression_id
            and one.at - disorder_ms <= e.at < until and e.at <= one.at + wait_ms
        ]  # fmt: skip
        clicked = clicks[0] if clicks else None
        this = (one.impression_id, one.at, one.payload)
        span = None if clicked is None else clicked - one.at
        if mode == "wait":
            rows.add((*this, one.at, 0, int(bool(clicks)), (wait_ms if span is None else max(span, 0)) / 1000))
            continue
        if span is not None and span <= observe_ms:
            rows.add((*this, one.at + observe_ms, 0, 1, max(span, 0) / 1000))
            continue
        rows.add((*this, one.at + observe_ms, 1, 0, observe_ms / 1000))
        if span is not None:
            rows.add((*this, clicked, 2, 1, span / 1000))
        elif mode in {"es_dfm", "dfm"}:
            rows.add((*this, one.at + wait_ms, 0, 0, wait_ms / 1000))
    return rows
