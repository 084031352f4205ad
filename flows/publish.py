"""The light net of a checkpoint becomes a version.

checkpoint ─▶ light arrays ─▶ gate (the rows that come next in the example log) ─▶ weight store
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts.app import App
from contracts.errors import ContractError
from contracts.stores import WeightStore
from flows.train_start import show_the_past
from model.checkpoint import load_newest
from model.export import light_views
from nodes.clock import now_ms
from nodes.cotrain import CoTrainer
from nodes.example_log import ExampleDirectory
from nodes.publish import Publisher


def run(
    app: App,
    checkpoints: Path,
    store: WeightStore,
    *,
    examples: Path | None = None,
    force: bool = False,
    why: str = "by hand",
    clock_ms: Callable[[], int] = now_ms,
) -> dict[str, Any]:
    """Publish the newest whole checkpoint's light net, if the gate lets it pass.

    A running trainer is not fenced out: this one publishes under the epoch that is in force.

    Args:
        app: whose nets these are.
        checkpoints: the trainer's folder.
        store: where the version goes.
        examples: the example log; the rows after the checkpoint's position are the gate's window.
        force: publish though the gate holds it, or without a window; weights that are not finite are refused even so.
        why: stands on the record.
        clock_ms: stands in the manifest.

    Returns:
        outcome ("published", "held"), reason, version, position, step, figures (of the gate), checkpoint.

    Raises:
        ContractError: neither `examples` nor `force`.
        CorruptError, SchemaMismatchError: no usable checkpoint.
        StoreError: the store cannot be reached or refuses.
    """
    if examples is None and not force:
        raise ContractError(
            "the gate needs rows that were not learnt yet: give the example log with --examples DIR, or skip it with "
            "--force"
        )
    loaded = load_newest(checkpoints, app.schema_id)
    trainer = CoTrainer(app)
    trainer.restore(loaded)
    publisher = Publisher(
        app, store, clock_ms, epoch=store.epoch() or store.take_epoch(), force=force, why=why, by_hand=True
    )
    log = None if examples is None else ExampleDirectory(examples)
    if log is not None:
        show_the_past(publisher, log, trainer.position, app.schema_id)
    publisher.offer(
        light_views(trainer.trainer),
        position=trainer.position,
        step=trainer.step,
        trained_until_ms=trainer.event_time_ms,
    )
    if log is not None:
        for segment in log.read(trainer.position, app.schema_id):
            if publisher.observe(segment.frame) is not None:
                break
    publisher.finish()
    return asdict(publisher.decisions[-1]) | {"checkpoint": loaded.manifest.name}
