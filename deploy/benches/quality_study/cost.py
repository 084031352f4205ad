"""What a candidate costs: multiplications in the layers, and CPU time for a request of 500 candidates."""

import time
from statistics import median
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from contracts.app import App
from model.tensors import Batch
from model.trainer import Trainer

CANDIDATES = 500
_REPEATS = 15


class Cost(NamedTuple):
    """Of one net."""

    multiplications: int  #: a candidate, in matrix products; look-ups, sums and activations not counted
    cpu_ms: float  #: for 500 candidates, one thread, torch, from ids to logits; median


def costs_of(app: App, batch: Batch) -> dict[str, Cost]:
    """The cost of the light net and, where there is one, of the booster.

    Args:
        app: its nets.
        batch: at least 500 rows; the first are used (a booster that attends pays for the positions that they have).
    """
    trainer = Trainer(app)
    asked = batch.slice(0, CANDIDATES).to(trainer.device)
    booster, trainer.nets.booster = trainer.nets.booster, None
    light = Cost(_multiplications(trainer, asked), _cpu_ms(trainer, asked))
    if booster is None:
        return {"light": light}
    trainer.nets.booster = booster
    both = Cost(_multiplications(trainer, asked), _cpu_ms(trainer, asked))
    return {
        "light": light,
        "booster": Cost(both.multiplications - light.multiplications, max(both.cpu_ms - light.cpu_ms, 0.0)),
    }


def _multiplications(trainer: Trainer, asked: Batch) -> int:
    for net in trainer.nets.nets.values():
        net.eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        trainer.nets.predict(asked)
    return round(counter.get_total_flops() / 2 / asked.rows)


def _cpu_ms(trainer: Trainer, asked: Batch) -> float:
    taken = []
    for _ in range(_REPEATS + 2):
        began = time.process_time()
        trainer.nets.predict(asked)
        taken.append(time.process_time() - began)
    return 1000 * median(taken[2:])
