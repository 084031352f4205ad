"""One model learns the rows once, in time order, and is judged frozen and going on."""

import time
from typing import NamedTuple

import numpy as np

from contracts.app import App
from contracts.errors import ContractError
from deploy.benches.quality_study.rows import Rows
from model.linear import HashedLinear
from model.metrics import Floats
from model.predictions import Predictions, joined
from model.tensors import Batch
from model.trainer import Trainer


class Learnt(NamedTuple):
    """What a model says of the rows; each a mapping from net ("light", "booster") to probabilities."""

    frozen: dict[str, Floats]  #: of the test rows, by the weights as they are where the test begins
    going_on: dict[str, Floats]  #: of the test rows, each minibatch predicted before it is learnt
    tuning: dict[str, Floats]  #: of the rows of the tuning days, likewise
    cpu_s: float  #: of learning the rows before the test


def learn_nets(app: App, rows: Rows, batch: Batch, seed: int) -> Learnt:
    """Train the nets of `app` one pass; the averaged towers predict, as those are what is published.

    Args:
        app: its settings.
        rows: where they are cut.
        batch: all rows as the app's tensors.
        seed: draws the first weights.
    """
    trainer, size = Trainer(app, seed=seed), app.config.train.batch_rows
    whole = rows.cut // size * size
    began = time.process_time()
    before = [trainer.learn(batch.slice(start, start + size)) for start in range(0, whole, size)]
    cpu_s = time.process_time() - began
    frozen = trainer.predict(batch.slice(rows.cut, batch.rows), averaged=True)
    after = []
    for start in range(rows.cut, batch.rows, size):
        part = batch.slice(start, min(start + size, batch.rows))
        after.append(trainer.predict(part, averaged=True))
        trainer.learn(part)
    first = rows.tuning // size
    skipped = rows.tuning - first * size
    tuning = {net: p[skipped:] for net, p in _by_net(joined(before[first:])).items()}
    return Learnt(_by_net(frozen), _by_net(joined(after)), tuning, cpu_s)


def learn_linear(app: App, rows: Rows) -> Learnt:
    """The hashed logistic regression of `app` over the light net's fields, learnt by FTRL; there is no chance in it."""
    linear, size = HashedLinear(app), app.config.train.batch_rows
    frame, began = rows.frame, time.process_time()
    before = [linear.learn(frame.slice(start, size)) for start in range(0, rows.cut // size * size, size)]
    cpu_s = time.process_time() - began
    frozen = linear.predict(frame[rows.cut :])
    after = [linear.learn(frame.slice(start, size)) for start in range(rows.cut, frame.height, size)]
    tuning = np.concatenate(before)[rows.tuning :]
    return Learnt({"light": frozen}, {"light": np.concatenate(after)}, {"light": tuning}, cpu_s)


def known_truth(rows: Rows) -> Learnt:
    """The true probabilities as if a model said them: nothing can be better.

    Raises:
        ContractError: they are not known.
    """
    if rows.truth is None:
        raise ContractError("the truth of these rows is not known; ask the simulator for some")
    return Learnt({"light": rows.truth}, {}, {}, 0.0)


def _by_net(predicted: Predictions) -> dict[str, Floats]:
    nets = {"light": predicted.light}
    return nets if predicted.booster is None else nets | {"booster": predicted.booster}
