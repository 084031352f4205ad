"""The count that trusts nobody: every event and example, from the topics themselves.

topics (or files) ─▶ the rules, in plain Python ─┬─▶ compare with fates ────────▶ each event has the fate that it must
                                                 └─▶ compare with the example log ▶ nothing lost, doubled, mislabelled
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from contracts.app import App
from contracts.errors import ContractError
from contracts.segments import FeatureBatch
from nodes.audit import Raw, Truth, keeps_contract, truth
from nodes.files import write_whole_frame
from nodes.ledger import read_fates
from nodes.read_raw import read_raw

_KEY = ["stream", "origin", "line"]
_LOG = {"impression_id": pl.String(), "event_time_ms": pl.Int64(), "example_id": pl.UInt64(), "label": pl.UInt8()}
_SHOWN = 5  # differences told one by one


def run(
    app: App,
    impressions: str,
    clicks: str,
    out: Path,
    examples: Iterable[FeatureBatch],
    *,
    checkpoints: Path | None = None,
    ledger: Path | None = None,
) -> dict[str, Any]:
    """Work out what should have become of every event that lies in the topics, and compare.

    Args:
        app: whose events they are; label mode `wait`.
        impressions: `kafka://host:port/topic`, or a file of JSON lines.
        clicks: the same of the clicks.
        out: the folder of ingest, with `fates/`.
        examples: the whole example log, from row 0.
        checkpoints: of the trainer, for how many rows it has learnt.
        ledger: where to write one row an event, with what became of it and of its example.

    Returns:
        streams (stream -> read and rows by fate), unaccounted (events without the fate that they must have), wrong
        (some of them, in a sentence each), wrongly_refused (dead letters that keep the contract), examples,
        lost, doubled, mislabelled, unordered, sampled_out, trained, pending,
        and `exact`: nothing of all that is wrong.

    Raises:
        ContractError: a source cannot be read, or the label mode is another one.
    """
    if app.config.labels.mode != "wait":
        raise ContractError(
            f"an audit knows labels.mode 'wait', not '{app.config.labels.mode}'; ingest with --set labels.mode=wait"
        )
    fates = read_fates(out / "fates")
    dead = fates.filter(pl.col("fate") == "dead_lettered").select("origin", "line").rows()
    records: dict[tuple[str, str], list[Raw]] = {}
    for stream, source in (("impressions", impressions), ("clicks", clicks)):
        for origin, lying in read_raw(source, app.config.kafka).items():
            records[stream, origin] = lying
    found = truth(app, records, set(dead))
    log = _rows(examples)
    position = None if checkpoints is None else _position(checkpoints)
    figures = _events(found, records, fates) | _examples(found, fates, log)
    figures["wrongly_refused"] = sum(
        keeps_contract(app, stream, raw.value)
        for (stream, origin), lying in records.items()
        for raw in lying
        if found.fates.get((stream, origin, raw.offset)) == "dead_lettered"
    )
    if position is not None:
        figures |= {"trained": min(position, log.height), "pending": log.height - min(position, log.height)}
    if ledger is not None:
        write_whole_frame(ledger, _ledger(fates, log, position))
    wrong = ("unaccounted", "wrongly_refused", "lost", "doubled", "mislabelled", "unordered")
    return figures | {"exact": not any(figures[name] for name in wrong)}


def _rows(examples: Iterable[FeatureBatch]) -> pl.DataFrame:
    """What the audit needs of the log; `row` is the place in it."""
    parts = [batch.frame.select(*_LOG).with_row_index("row", batch.first_row) for batch in examples]
    return pl.concat([pl.DataFrame(schema=_LOG).with_row_index("row"), *parts])


def _position(checkpoints: Path) -> int:
    """Rows learnt, as the newest manifest says: read here without the code that wrote it."""
    manifests = [json.loads(path.read_bytes()) for path in checkpoints.glob("*/manifest.json")]
    return max((int(manifest["position"]) for manifest in manifests), default=0)


def _events(found: Truth, records: dict[tuple[str, str], list[Raw]], fates: pl.DataFrame) -> dict[str, Any]:
    told = {(stream, origin, line): fate for stream, origin, line, fate in fates.select(*_KEY, "fate").iter_rows()}
    wrong = [
        f"{stream} {origin} record {raw.offset}: must be {must}, but is {told.get((stream, origin, raw.offset))}"
        for (stream, origin), lying in records.items()
        for raw in lying
        if (must := found.fates.get((stream, origin, raw.offset))) is None
        or told.get((stream, origin, raw.offset)) != must
    ]
    there = {(stream, origin, raw.offset) for (stream, origin), lying in records.items() for raw in lying}
    gone = told.keys() - there
    wrong += [f"{stream} {origin} record {line}: is not there, but has a fate" for stream, origin, line in gone]
    streams = {}
    for stream in ("impressions", "clicks"):
        read = sum(len(lying) for (of, _), lying in records.items() if of == stream)
        streams[stream] = {"read": read} | dict(sorted(found.read(stream).items()))
    return {"streams": streams, "unaccounted": len(wrong), "wrong": sorted(wrong)[:_SHOWN]}


def _examples(found: Truth, fates: pl.DataFrame, log: pl.DataFrame) -> dict[str, Any]:
    keys = log.select("impression_id", "event_time_ms").rows()
    labels = dict(zip(keys, log["label"].to_list(), strict=True))
    outcome = fates.filter((pl.col("stream") == "impressions") & (pl.col("fate") == "accepted"))
    known = {(name, at): said for name, at, said in outcome.select("id", "event_time_ms", "outcome").iter_rows()}
    missing = [key for key in found.labels if key not in labels]
    said = Counter("sampled_out" if known.get(key) == "sampled_out" else "lost" for key in missing)
    time, name = pl.col("event_time_ms"), pl.col("impression_id")
    behind = (time < time.shift()) | ((time == time.shift()) & (name <= name.shift()))
    return {
        "examples": log.height,
        "sampled_out": said["sampled_out"],
        "lost": said["lost"],
        "doubled": log.height - log["example_id"].n_unique() + len(labels.keys() - found.labels.keys()),
        "mislabelled": sum(found.labels.get(key, label) != label for key, label in labels.items()),
        "unordered": int(log.select(behind.sum()).item()),
    }


def _ledger(fates: pl.DataFrame, log: pl.DataFrame, position: int | None) -> pl.DataFrame:
    learnt = pl.lit(None, pl.Boolean) if position is None else pl.col("row") < position
    use = log.select(
        id="impression_id",
        event_time_ms="event_time_ms",
        use=pl.when(learnt).then(pl.lit("trained")).when(~learnt).then(pl.lit("pending")),
        stream=pl.lit("impressions"),
        fate=pl.lit("accepted"),
    )
    return fates.join(use, on=["stream", "id", "event_time_ms", "fate"], how="left", maintain_order="left")
