"""Folders of runs from which a teacher is fetched."""

from pathlib import Path

from model.checkpoint import save_checkpoint
from model.fence import claim_epoch
from model.trainer import Trainer


def save_run(trainer: Trainer, folder: Path) -> Path:
    """A run's folder with one checkpoint of a trainer, as far as a teacher is fetched from it."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    meta = {
        "app": trainer.app.name,
        "schema_id": trainer.app.schema_id,
        "epoch": claim_epoch(checkpoints),
        "step": trainer.step,
        "position": 0,
        "event_time_ms": 0,
        "parent": None,
        "metrics": {},
        "trainer": trainer.meta(),
    }
    tensors = {f"trainer.{name}": tensor for name, tensor in trainer.state().items()}
    save_checkpoint(checkpoints, tensors, meta, {}, keep=2)
    return folder
