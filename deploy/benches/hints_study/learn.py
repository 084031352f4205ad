"""One method learns the rows once, is judged on the last ones, and what its loss must weigh to be heard."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contracts.app import App
from deploy.benches.quality_study.rows import Rows
from model.checkpoint import save_checkpoint
from model.fence import claim_epoch
from model.metrics import Floats
from model.tensors import Batch
from model.trainer import Trainer

_SHY = 1e-6  #: a lambda that moves nothing, so that no scale shapes what is measured
_SHARE = 0.5  #: how long a term's gradient on the light net is to be, of the label's
_LOOKS = 48  #: minibatches that are looked at


class Learnt(NamedTuple):
    """A method after one pass."""

    trainer: Trainer
    p: Floats  #: of the test rows, by the averaged light net as it would be published where the test begins
    cpu_s: float  #: of learning


def learn(app: App, rows: Rows, batch: Batch, seed: int) -> Learnt:
    """Learn the rows before the test once, in order, and predict those of the test.

    Args:
        app: its settings.
        rows: where they are cut.
        batch: all of them as the app's tensors.
        seed: draws the first weights.
    """
    trainer, size = Trainer(app, seed=seed), app.config.train.batch_rows
    began = time.process_time()
    for start in range(0, rows.cut // size * size, size):
        trainer.learn(batch.slice(start, start + size))
    cpu_s = time.process_time() - began
    return Learnt(trainer, trainer.predict(batch.slice(rows.cut, batch.rows), averaged=True).light, cpu_s)


def balanced(app: App, batch: Batch, setting: str, *, seed: int) -> float:
    """The lambda at which a hint's gradient on the light tower is half as long as the label's, early in training.

    Losses of the shelf differ in scale by orders of magnitude; one lambda for all would compare scales. Root mean
    squares over the second half of the first minibatches; label and booster alone move the nets meanwhile.

    Args:
        app: with the hint, its gate shut never, its schedule constant and `setting` very small.
        batch: rows to learn.
        setting: "hint_weight" or "feature_weight".
        seed: draws the first weights.
    """
    trainer, size = Trainer(app, seed=seed), app.config.train.batch_rows
    for start in range(0, min(batch.rows, _LOOKS * size) // size * size, size):
        trainer.learn(batch.slice(start, start + size))
    looks = trainer.watch.history[len(trainer.watch.history) // 2 :]
    term = "hint" if setting == "hint_weight" else "feature"
    label, told = (_length([look.get(f"grad_light_{name}", 0.0) for look in looks]) for name in ("light", term))
    return _SHARE * label / (told / _SHY) if told else 1.0


def shy(setting: str) -> dict[str, Any]:
    """What `balanced` wants to be laid over the method's settings."""
    told: dict[str, Any] = {"gate": False, "schedule": "constant", "watch_every": 1, "factor_rows": 0, setting: _SHY}
    return {"rocket": told}


def save_teacher(trainer: Trainer, folder: Path) -> Path:
    """A run's folder with one checkpoint of a trainer, as far as a teacher is fetched from it."""
    checkpoints = folder / "checkpoints"
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


def _length(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else 0.0
