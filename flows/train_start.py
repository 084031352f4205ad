"""Where training begins: the newest checkpoint, the log that it stands in, and the claim that fences others out."""

from dataclasses import dataclass
from pathlib import Path

from contracts.app import App
from contracts.errors import ContractError
from contracts.stores import ExampleLog, WeightStore
from model.checkpoint import load_newest
from model.checkpoint_manifest import names
from model.fence import claim_epoch
from nodes.cotrain import CoTrainer
from nodes.gate.watch import PAST_ROWS
from nodes.publish import Publisher


@dataclass(frozen=True)
class Start:
    """How a trainer begins where nothing, or another booster, stands among its checkpoints."""

    light_from: WeightStore | None = None  #: a new trainer's light net begins as the newest version there
    new_booster: bool = False  #: another booster than the checkpoint's begins anew


BLANK = Start()


def begin(
    app: App,
    log: ExampleLog,
    rows: int,
    checkpoints: Path,
    *,
    resume: bool,
    until_ms: int | None,
    called: str,
    start: Start = BLANK,
) -> tuple[CoTrainer, str | None, int]:
    """The trainer where it stood, the checkpoint's name, and the epoch that fences out whoever was at work here.

    Args:
        app: whose nets learn.
        log: the example log.
        rows: that stand in it.
        checkpoints: their folder.
        resume: False begins anew, whatever stands there.
        until_ms: rows from that event time on are held out.
        called: what errors call the log.
        start: how it begins; a checkpoint goes before `light_from`, so that the same command goes on.

    Raises:
        SchemaMismatchError, CorruptError: no usable checkpoint among those that stand there.
        ContractError: the log is another one than before, or what is to be held out is learnt already, or the nets of
            the checkpoint or of the version that the light net is to begin with are others.
        StoreError: the folder cannot be written, or there is no version.
    """
    while True:
        trainer, standing = CoTrainer(app), names(checkpoints)
        saved = load_newest(checkpoints, app.schema_id) if resume and standing else None
        if saved is not None:
            trainer.restore(saved, new_booster=start.new_booster)
            _same_log(log, trainer, rows, called)
            if until_ms is not None and trainer.examples and trainer.event_time_ms >= until_ms:
                raise ContractError(
                    f"{saved.path}: has learnt up to event time {trainer.event_time_ms} ms, past --until {until_ms}: "
                    "what is to be held out is learnt already; give a later --until, or train anew with --fresh"
                )
        elif start.light_from is not None:
            trainer.begin_with(start.light_from.fetch())
        epoch = claim_epoch(checkpoints)  # only now: a start that is refused must not stop a trainer at work
        if not resume or names(checkpoints) == standing:
            return trainer, None if saved is None else saved.manifest.name, epoch


def show_the_past(publisher: Publisher, log: ExampleLog, position: int, schema_id: str) -> None:
    """Let the gate look at rows that were learnt before this process began, so that it knows what is usual.

    They begin before what the live version had learnt, which was believed: poison that came later, while nobody trained
    or shortly before, is seen to be different.

    Args:
        publisher: with no candidate yet.
        log: the example log.
        position: rows of it that are learnt.
        schema_id: of its segments.
    """
    believed = position if publisher.live_position is None else min(publisher.live_position, position)
    start = max(believed - PAST_ROWS, 0)
    for segment in log.read(start, schema_id) if position > start else ():
        publisher.observe(segment.frame.head(position - segment.first_row))
        if segment.next_row >= position:
            return


def _same_log(log: ExampleLog, trainer: CoTrainer, rows: int, called: str) -> None:
    """Refuse a log other than the one that the checkpoint stands in.

    Raises:
        ContractError: it is shorter than the position, or another example stands there.
    """
    if not trainer.position:
        return
    last = trainer.ids.table(trainer.position).row(-1, named=True)
    if trainer.position <= rows:
        there = next(log.read(last["_row"])).frame.row(0, named=True)
        if there["example_id"] == last["example_id"] and there["event_time_ms"] == last["event_time_ms"]:
            return
    raise ContractError(
        f"{called}: is not the example log that the checkpoint was trained on (it stands at row "
        f"{trainer.position:,}, the log has {rows:,}); give that log, or train anew with --fresh"
    )


def first_row_at(log: ExampleLog, rows: int, until_ms: int, schema_id: str) -> int:
    """The first row with that event time or later, by halving; the log is in order of event time."""
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        segment = next(log.read(middle, schema_id))
        times = segment.frame["event_time_ms"]
        if times[0] >= until_ms:
            high = middle
        elif times[-1] < until_ms:
            low = segment.next_row
        else:
            return middle + int(times.search_sorted(until_ms, side="left"))
    return low
