"""The gate of the hint asks for a lead: a booster that knows little more than the light net must not pull at it."""

from pathlib import Path

import pytest

from model.trainer import Trainer
from tests.random_examples import random_examples, small_app


@pytest.mark.parametrize(("lead", "opens"), [(0.0, True), (0.05, True), (0.2, False)])
def test_the_gate_opens_only_for_a_lead_beyond_the_setting(tmp_path: Path, lead: float, *, opens: bool) -> None:
    app = small_app(tmp_path / "app", {"rocket": {"gate_lead": lead, "hint_weight": 2.0}})
    trainer = Trainer(app)
    trainer.learn(random_examples(app, 64))
    meta = trainer.meta() | {"running_logloss": {"light": 0.6, "booster": 0.5}}
    trainer.restore(trainer.state(), meta)
    assert trainer.gate_open is opens
    assert trainer.hint_weight == (2.0 if opens else 0.0)
