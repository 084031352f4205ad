"""The light net of a checkpoint, as the scorer would serve it."""

from pathlib import Path

import numpy as np

from contracts.app import App
from model.checkpoint import load_newest
from model.export import light_arrays
from nodes.cotrain import CoTrainer


def light_of(app: App, checkpoints: Path) -> tuple[str, dict[str, np.ndarray]]:
    """The name of the newest whole checkpoint, and its light net's arrays, float32.

    Raises:
        CorruptError, SchemaMismatchError: no usable checkpoint.
        ContractError: it was trained with other nets.
    """
    loaded, trainer = load_newest(checkpoints, app.schema_id), CoTrainer(app)
    trainer.restore(loaded)
    return loaded.manifest.name, light_arrays(trainer.trainer)
