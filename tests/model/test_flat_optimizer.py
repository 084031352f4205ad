"""The towers' rules, schedules and clipping against torch's own optimizers and plain formulas."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contracts.errors import ContractError
from contracts.training import Dense
from model.optimizers.flat import FlatOptimizer
from model.optimizers.schedules import share_of_rate
from tests.random_examples import small_app

LR = 0.01


def nets() -> list[nn.Module]:
    torch.manual_seed(3)
    return [nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), nn.Linear(6, 1)]


def plain_adamw(modules: list[nn.Module]) -> torch.optim.Optimizer:
    parameters = [p for net in modules for p in net.parameters()]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.3},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR)


def plain(make: Callable[..., torch.optim.Optimizer], **settings: float) -> Callable[..., torch.optim.Optimizer]:
    return lambda modules: make([p for net in modules for p in net.parameters()], lr=LR, **settings)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Dense(), plain(torch.optim.Adam)),
        (Dense(optimizer="adamw", weight_decay=0.3), plain_adamw),
        (Dense(optimizer="sgd"), plain(torch.optim.SGD)),
        (Dense(optimizer="sgd", momentum=0.9), plain(torch.optim.SGD, momentum=0.9)),
    ],
    ids=["adam", "adamw", "sgd", "momentum"],
)
def test_each_rule_is_that_of_torch(ours: Dense, theirs: Callable[..., torch.optim.Optimizer]) -> None:
    mine, other = nets(), nets()
    flat, optimizer = FlatOptimizer(mine, lr=LR, settings=ours), theirs(other)
    for step in range(15):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        flat.clear()
        optimizer.zero_grad()
        for a, b in zip(mine, other, strict=True):
            a(x).square().mean().backward()
            b(x).square().mean().backward()
        flat.step(step * 16)
        optimizer.step()
    for a, b in zip(mine, other, strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert (p - q).abs().max().item() < 1e-6
            assert not torch.equal(p, torch.zeros_like(p))


def expected_share(settings: Dense, rows: int) -> float:
    """The schedules once more, from their curves' end points."""
    if rows < settings.warmup_rows:
        return float(np.interp(rows, [0, settings.warmup_rows], [0, 1]))
    ends = [settings.warmup_rows, settings.warmup_rows + settings.decay_rows]
    if settings.schedule == "linear":
        return float(np.interp(rows, ends, [1, settings.lr_floor]))
    if settings.schedule == "cosine":
        angle = float(np.interp(rows, ends, [0, np.pi]))
        return settings.lr_floor + (1 - settings.lr_floor) * (1 + np.cos(angle)) / 2
    return {"constant": 1.0, "inverse_sqrt": (settings.warmup_rows / max(rows, 1)) ** 0.5}[settings.schedule]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(get_args(Dense.model_fields["schedule"].annotation)),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.floats(0, 1),
    st.integers(1, 5000),
)
def test_schedules_are_their_curves(name: str, warmup: int, decay: int, floor: float, rows: int) -> None:
    settings = Dense(schedule=name, warmup_rows=warmup, decay_rows=decay, lr_floor=floor)
    share = share_of_rate(settings, rows)
    assert share == pytest.approx(expected_share(settings, rows), abs=1e-9)
    assert 0 <= share <= 1


def test_the_schedule_scales_the_step() -> None:
    mine = nets()
    flat = FlatOptimizer(mine, lr=1.0, settings=Dense(optimizer="sgd", warmup_rows=100))
    before = flat.values.clone()
    flat.gradients.fill_(1.0)
    flat.step(25)
    assert torch.allclose(before - flat.values, torch.full_like(before, 0.25), atol=1e-6)


def test_a_wild_net_is_clipped_and_the_other_is_not() -> None:
    def stepped(settings: Dense) -> list[torch.Tensor]:
        wild, calm = nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)
        flat = FlatOptimizer([wild, calm], lr=1.0, settings=settings)
        flat.values.zero_()
        wild(torch.full((1, 4), 1e6)).sum().backward()
        calm(torch.full((1, 4), 0.1)).sum().backward()
        flat.clip(flat.gradient_norms())
        flat.step(1)
        return list(flat.values.split(4))

    free, clipped = stepped(Dense(optimizer="sgd")), stepped(Dense(optimizer="sgd", clip_norm=2.0))
    assert clipped[0].norm().item() == pytest.approx(2.0, rel=1e-5)
    assert free[0].norm().item() > 1e6
    assert torch.equal(clipped[1], free[1])


def test_first_order_weights_that_there_are_none_of_are_not_moved(tmp_path: Path) -> None:
    settings = {"train": {"wide_optimizer": "ftrl"}, "model": {"light": {"wide": False}}}
    with pytest.raises(ContractError, match=r"line \d+, \[train\] wide_optimizer = 'ftrl': .* there are none; set"):
        small_app(tmp_path / "app", settings)


@pytest.mark.parametrize(
    ("dense", "told"),
    [
        ({"optimizer": "adam", "momentum": 0.9}, 'momentum is for optimizer = "sgd"'),
        ({"weight_decay": 0.1}, 'weight_decay is for optimizer = "adamw"'),
        ({"schedule": "cosine"}, "needs decay_rows"),
        ({"schedule": "linear"}, "needs decay_rows"),
        ({"schedule": "inverse_sqrt"}, "needs warmup_rows"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"optimizer": "lion"}, "optimizer"),
    ],
)
def test_settings_that_go_unheard_are_refused_where_they_stand(tmp_path: Path, dense: dict, told: str) -> None:
    with pytest.raises(ContractError, match=told) as caught:
        small_app(tmp_path / "app", {"train": {"dense": dense}})
    assert "dense" in str(caught.value)
    assert "app.toml" in str(caught.value)
