"""Law 10: the booster feels no hint. And the table in `model.losses`: which parameters feel which term."""

from contextlib import nullcontext
from itertools import product
from pathlib import Path

import pytest
import torch

from contracts.app import load_app
from model.boosters import BOOSTERS
from model.hints import HINTS
from model.losses import rocket_loss
from model.tensors import to_batch
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app

TERMS = ("light", "booster", "hint")
GROUPS = ("light_own", "light_rows", "booster_rows_of_light_features", "booster_only_rows", "booster_own")


def felt(term: str, *, booster: str, hint: str, sharing: str, block: bool, updates: bool) -> dict[str, float]:
    """The largest gradient that one loss term alone puts on each group of parameters."""
    app = load_app(  # it has rows that only the booster reads
        "kuairand",
        {
            "model": {
                "embedding_dim": 4,
                "sharing": sharing,
                "light": {"hidden": [8]},
                "booster": {"kind": booster, "pooling": "attention", "hidden": [16], "cross_layers": 1},
            },
            "rocket": {"light_updates_shared": updates},
            "train": {"precision": "fp32", "device": "cpu"},
        },
    )
    trainer = Trainer(app)
    frame = random_examples(app, 256)
    for start in range(0, 192, 64):  # away from the start, where both nets say the same
        trainer.learn(frame[start : start + 64])
    batch, nets = to_batch(frame[192:], app), trainer.nets
    for parameter in (p for net in nets.nets.values() for p in net.parameters()):
        parameter.grad = None
    judged = nets.learn(batch, nullcontext())
    assert judged.booster_B is not None
    told = batch[3:6]  # label, weight, logit shift

    def total(light: torch.Tensor, booster: torch.Tensor | None, weight: float) -> torch.Tensor:
        given = {"hint": HINTS[hint], "hint_weight": weight, "gradient_block": block}
        return rocket_loss(light, booster, *told, **given).total

    light, teacher = judged.light_B, judged.booster_B
    # what both sides of a difference share cancels on the logits, exactly
    loss = {
        "light": lambda: total(light, None, 0.0),
        "booster": lambda: total(light, teacher, 0.0) - total(light, None, 0.0),
        "hint": lambda: total(light, teacher, 1.0) - total(light, teacher, 0.0),
    }[term]()
    loss.backward()
    fields, light_ids = batch.ids_BF.shape[1], len(app.layout.light_ids)
    light_touched, booster_touched = judged.touched[0][1], judged.touched[-1][1]

    def largest(tensors: list[torch.Tensor | None]) -> float:
        return max((float(t.abs().max()) for t in tensors if t is not None and t.numel()), default=0.0)

    rows = booster_touched.leaves[0].grad
    rows = torch.zeros_like(booster_touched.leaves[0]) if rows is None else rows
    by_field = rows[: batch.rows * fields].view(batch.rows, fields, -1)
    wide = light_touched.leaves[1].grad
    return {
        "light_own": largest([*(p.grad for p in nets.light.parameters()), wide]),
        "light_rows": largest([light_touched.leaves[0].grad]) if sharing == "separate" else 0.0,
        "booster_rows_of_light_features": largest([by_field[:, :light_ids]]),
        "booster_only_rows": largest([by_field[:, light_ids:], rows[batch.rows * fields :]]),
        "booster_own": largest([p.grad for p in nets.booster.parameters()] if nets.booster else []),
    }


def expected(term: str, *, sharing: str, block: bool, updates: bool) -> set[str]:
    """The groups that feel a term, after the table in `model.losses`."""
    shared = "booster_rows_of_light_features"
    light = {"light_own"} | ({"light_rows"} if sharing == "separate" else {shared} if updates else set())
    booster = {"booster_own", "booster_only_rows", shared}
    return {"light": light, "booster": booster, "hint": light if block else light | booster}[term]


@pytest.mark.parametrize(
    ("sharing", "block", "updates"), list(product(("shared", "separate"), (True, False), (True, False)))
)
def test_each_parameter_group_feels_the_terms_that_the_table_says(sharing: str, *, block: bool, updates: bool) -> None:
    for term in TERMS:
        got = felt(term, booster="dcn_v2", hint="logit_mse", sharing=sharing, block=block, updates=updates)
        wanted = expected(term, sharing=sharing, block=block, updates=updates)
        assert {group for group in GROUPS if got[group] > 0} == wanted, term


@pytest.mark.parametrize(("booster", "hint"), list(product(BOOSTERS, HINTS)))
def test_the_hint_never_reaches_what_only_the_booster_has(booster: str, hint: str) -> None:
    for sharing in ("shared", "separate"):
        given = {"booster": booster, "hint": hint, "sharing": sharing, "updates": True}
        blocked = felt("hint", block=True, **given)
        assert blocked["booster_own"] == 0.0
        assert blocked["booster_only_rows"] == 0.0
        assert blocked["light_own"] > 0
        free = felt("hint", block=False, **given)
        assert free["booster_own"] > 0


def test_with_the_block_a_booster_of_its_own_rows_ends_as_if_there_were_no_hint(tmp_path: Path) -> None:
    """The law end to end: the same bytes of the booster with a strong hint and with none."""
    states = []
    for weight in (0.0, 10.0):
        app = small_app(
            tmp_path / "app", {"model": {"sharing": "separate"}, "rocket": {"hint_weight": weight, "gate": False}}
        )
        trainer, frame = Trainer(app), random_examples(app, 640)
        for start in range(0, 640, 64):
            trainer.learn(frame[start : start + 64])
        states.append(trainer.state())
    for name in states[0]:
        if name.startswith(("model.booster.", "model.table.booster.", "optimizer.table.booster.")):
            assert torch.equal(states[0][name], states[1][name]), name
    assert not torch.equal(states[0]["model.table.light.embedding"], states[1]["model.table.light.embedding"])
