"""Law 10: the booster feels no hint. And the table in `model.losses`: who feels which term, in every mode."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.app import App, load_app
from contracts.nets import Booster
from model.boosters import BOOSTERS, BoosterInput, Sizes
from model.hints import FEATURE_HINTS, HINTS
from model.losses import Features, rocket_loss
from model.rocket import Judged
from model.tensors import Batch, to_batch
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app, small_app_folder

#: (model.sharing, model.share): every way to share.
SHARED = [("shared", "embeddings"), ("separate", "embeddings"), ("shared", "trunk")]
PAIRS = ((1, 0),)  # above the trunk, below the booster's last layer


class Own(nn.Module):
    """A user's own booster that gives its hidden layer."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(sizes.flat, settings.hidden[0]), nn.Linear(settings.hidden[0], 1)

    def forward(self, seen: BoosterInput, hidden: list[Tensor] | None = None) -> Tensor:
        layer = self.first(seen.flat()).relu()
        if hidden is not None:
            hidden.append(layer)
        return self.last(layer).squeeze(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an app that has rows which only the booster reads."""
    return small_app_folder(tmp_path_factory.mktemp("app") / "small", "kuairand", max_buckets=32)


def made(folder: Path, kind: str, sharing: str, share: str, *, updates: bool) -> tuple[Trainer, Batch, Judged]:
    """A trainer away from its start, a minibatch, and what the nets say of it."""
    model = {
        "embedding_dim": 4,
        "sharing": sharing,
        "share": share,
        "light": {"hidden": [8, 8], "fm": True},
        "booster": {"kind": kind, "pooling": "attention", "hidden": [8, 8], "cross_layers": 1},
    }
    told = {"feature_hint": "cosine", "feature_layers": PAIRS, "light_updates_shared": updates}
    app: App = load_app(
        folder, {"model": model, "rocket": told, "train": {"precision": "fp32", "device": "cpu", "linear": False}}
    )
    trainer, draw = Trainer(app), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in [*(p for net in trainer.nets.nets.values() for p in net.parameters())]:
            tensor.add_(torch.randn(tensor.shape, generator=draw), alpha=0.1)
        for table in trainer.nets.tables.values():
            for part in table.views().values():
                part.add_(torch.randn(part.shape, generator=draw), alpha=0.3)
    batch = to_batch(random_examples(app, 32), app)
    return trainer, batch, trainer.nets.learn(batch, nullcontext(), hidden=True)


def groups_of(trainer: Trainer, batch: Batch, judged: Judged) -> dict[str, list[tuple[Tensor, Any]]]:
    """Group -> its parameters, each with what of its gradient belongs to the group."""
    nets, whole = trainer.nets, slice(None)
    trunk = trainer.app.config.model.trunk_layers if trainer.app.config.model.share == "trunk" else 0
    light, booster = judged.touched[0][1].leaves, judged.touched[-1][1].leaves[0]
    fields, lights = batch.ids_BF.shape[1], len(trainer.app.layout.light_ids)
    of_light = torch.zeros(len(booster), dtype=torch.bool)
    of_light[: batch.rows * fields].view(batch.rows, fields)[:, :lights] = True

    def parameters(*modules: nn.Module) -> list[tuple[Tensor, Any]]:
        return [(p, whole) for module in modules for p in module.parameters()]

    head = [(p, whole) for p in (nets.light.bias, nets.light.fm, nets.light.wide_dense, light[1]) if p is not None]
    assert nets.booster is not None
    return {
        "trunk": parameters(*nets.light.mlp[:trunk]),
        "light_layers": parameters(*nets.light.mlp[trunk:-1]),
        "light_head": [*parameters(nets.light.mlp[-1]), *head],
        "light_rows": [(light[0], whole)] if len(judged.touched) > 1 else [],
        "both_rows": [(booster, of_light)],
        "booster_rows": [(booster, ~of_light)],
        "booster_own": parameters(nets.booster),
    }


def feeling(part: Tensor, groups: dict[str, list[tuple[Tensor, Any]]]) -> set[str]:
    """The groups that a term of the loss moves."""
    if not part.requires_grad:
        return set()
    asked = list({id(p): p for group in groups.values() for p, _ in group if p.numel()}.values())
    found = torch.autograd.grad(part, asked, retain_graph=True, allow_unused=True)
    gradients = {id(p): gradient for p, gradient in zip(asked, found, strict=True) if gradient is not None}
    return {
        name
        for name, group in groups.items()
        if any(id(p) in gradients and bool(gradients[id(p)][mine].any()) for p, mine in group)
    }


def expected(term: str, sharing: str, share: str, *, block: bool, updates: bool) -> set[str]:
    """The groups that feel a term, after the table in `model.losses`."""
    common = {"both_rows"} | ({"trunk"} if share == "trunk" else set())
    below = {"light_rows"} if sharing == "separate" else common if updates else set()
    light, booster = {"light_layers", "light_head"} | below, {"booster_own", "booster_rows"} | common
    side = {"light": light, "hint": light, "feature": light - {"light_head"}, "booster": set()}[term]
    return side | booster if term == "booster" or (term != "light" and not block) else side


@pytest.mark.parametrize("updates", [True, False])
@pytest.mark.parametrize(("sharing", "share"), SHARED)
@pytest.mark.parametrize("kind", [*BOOSTERS, f"{__name__}:Own"])
def test_each_parameter_group_feels_the_terms_that_the_table_says(
    folder: Path, kind: str, sharing: str, share: str, *, updates: bool
) -> None:
    trainer, batch, judged = made(folder, kind, sharing, share, updates=updates)
    groups = groups_of(trainer, batch, judged)
    layers = judged.light_layers, judged.booster_layers
    for block in (True, False):
        for hint, feature in zip(HINTS, FEATURE_HINTS, strict=False):
            terms = rocket_loss(
                judged.light_B, judged.booster_B, *batch[3:6], hint=HINTS[hint], hint_weight=0.7, gradient_block=block,
                features=Features(FEATURE_HINTS[feature], PAIRS, *layers, 0.4),
            )  # fmt: skip
            for term, part in terms.parts.items():
                wanted = expected(term, sharing, share, block=block, updates=updates)
                assert feeling(part, groups) == wanted, (term, block, hint, feature)
            assert len(terms.parts) == 4


@pytest.mark.parametrize("updates", [True, False])
def test_a_light_net_alone_feels_its_label_whatever_the_booster_would_share(folder: Path, *, updates: bool) -> None:
    told = {"model": {"share": "trunk", "booster": {"kind": "none"}}, "rocket": {"light_updates_shared": updates}}
    trainer = Trainer(load_app(folder, told))
    before = trainer.state()
    trainer.learn(random_examples(trainer.app, 64))
    moved = {name for name, tensor in trainer.state().items() if not torch.equal(tensor, before[name])}
    assert {"model.table.light.embedding", "model.table.light.wide", "model.light.mlp.0.weight"} <= moved


def test_a_pair_in_a_detached_trunk_moves_nothing(folder: Path) -> None:
    trainer, batch, judged = made(folder, "mlp", "shared", "trunk", updates=False)
    features = Features(FEATURE_HINTS["euclidean"], ((0, 0),), judged.light_layers, judged.booster_layers, 1.0)
    terms = rocket_loss(
        judged.light_B, judged.booster_B, *batch[3:6], hint=HINTS["logit_mse"], hint_weight=0.0, gradient_block=True,
        features=features,
    )  # fmt: skip
    assert feeling(terms.parts["feature"], groups_of(trainer, batch, judged)) == set()


@pytest.mark.parametrize("features", [False, True])
def test_with_the_block_a_booster_of_its_own_rows_ends_as_if_there_were_no_hint(
    tmp_path: Path, *, features: bool
) -> None:
    """The law end to end: the same bytes of the booster with a strong hint and with none."""
    states = []
    for weight in (0.0, 10.0):
        rocket = {"hint_weight": 0.0 if features else weight, "feature_weight": weight, "gate": False}
        if features:
            rocket |= {"feature_hint": "cosine", "feature_layers": [[0, 0]]}
        model = {"sharing": "separate", "booster": {"hidden": [8]}}
        trainer = Trainer(small_app(tmp_path / "app", {"model": model, "rocket": rocket}))
        frame = random_examples(trainer.app, 640)
        for start in range(0, 640, 64):
            trainer.learn(frame[start : start + 64])
        states.append(trainer.state())
    for name in states[0]:
        if name.startswith(("model.booster.", "model.table.booster.", "optimizer.table.booster.")):
            assert torch.equal(states[0][name], states[1][name]), name
    assert not torch.equal(states[0]["model.table.light.embedding"], states[1]["model.table.light.embedding"])
