"""Each scheme against plain NumPy, who feels it, what stands still, and that all export the same light net."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.app import App
from contracts.errors import ContractError
from contracts.nets import Rocket
from contracts.schemes import SCHEMES
from deploy.benches.hints_study.learn import save_teacher
from model.export import light_arrays
from model.hints import HINTS
from model.losses import Terms, both_ways, rocket_loss
from model.metrics import Floats
from model.rocket import Judged
from model.schedule import HintGate
from model.schemes import SCHEMES as MODULES
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.score import LightScorer
from tests.random_examples import dynamic_app, random_examples, small_app, small_app_folder

MODEL = {"light": {"hidden": [8, 6], "fm": True}}
ROWS = 64
TAUGHT = ("offline", "rocket_kd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_app_folder(tmp_path_factory.mktemp("app") / "small")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Trainer:
    """Trained for a while, and saved beside the app."""
    trainer = Trainer(app_of(folder, "rocket"), seed=9)
    learn(trainer, 6)
    save_teacher(trainer, folder.with_name("teacher"))
    return trainer


def app_of(folder: Path, scheme: str, **rocket: Any) -> App:
    told = {"scheme": scheme, "gate": False, "hint_weight": 0.7, **rocket}
    if scheme in TAUGHT:
        told["teacher"] = str(folder.with_name("teacher"))
    return small_app(folder, {"model": MODEL, "rocket": told, "train": {"precision": "fp32", "device": "cpu"}})


def learn(trainer: Trainer, batches: int, seed: int = 0) -> None:
    frame = random_examples(trainer.app, batches * ROWS, seed)
    for start in range(0, frame.height, ROWS):
        trainer.learn(frame[start : start + ROWS])


def judged(trainer: Trainer, weight: float = 0.7) -> tuple[Judged, Terms, Floats, Floats]:
    """A minibatch judged with gradients, its loss, its labels, and what the light net's first layer reads."""
    batch, nets = to_batch(random_examples(trainer.app, ROWS, 4), trainer.app), trainer.nets
    torch.manual_seed(3)
    said = nets.learn(batch, nullcontext())
    terms = rocket_loss(
        said.light_B, said.booster_B, batch.label_B, batch.weight_B, batch.logit_shift_B, hint=HINTS["logit_mse"],
        hint_weight=weight, gradient_block=True,
        scheme=lambda costs: nets.scheme.terms(said.light_B, said.light_layers, said.said, costs),
    )  # fmt: skip
    lights = len(trainer.app.layout.light_ids)
    rows = nets.light_table.views()["embedding"][batch.ids_BF[:, :lights].reshape(-1)].view(ROWS, -1)
    seen = torch.cat((rows, batch.dense_BN[:, : len(trainer.app.layout.light_dense)]), dim=1)
    return said, terms, batch.label_B.double().numpy(), seen.double().numpy()


def numbers(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.detach().double().numpy()
    return array


def through(layer: torch.nn.Module, x: Floats) -> Floats:
    made: Floats = x @ numbers(layer.weight).T + numbers(layer.bias)  # type: ignore[arg-type]
    return made


def cross_entropy(logit: Floats, label: Floats) -> float:
    return float(np.mean(np.logaddexp(0, logit) - label * logit))


def layers_of(trainer: Trainer, x: Floats) -> list[Floats]:
    layers = [x]
    for layer in trainer.nets.light.mlp[:-1]:
        layers.append(np.maximum(through(layer, layers[-1]), 0))
    return layers


def test_both_tables_name_the_same_schemes() -> None:
    assert set(MODULES) == set(SCHEMES)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_learns_and_exports_the_same_light_net_that_the_scorer_serves(
    folder: Path, teacher: Trainer, scheme: str
) -> None:
    trainer = Trainer(app_of(folder, scheme, generation_rows=128))
    learn(trainer, 4)
    arrays, plain = light_arrays(trainer), light_arrays(teacher)
    assert {name: a.shape for name, a in arrays.items()} == {name: a.shape for name, a in plain.items()}
    store = MemoryWeights(trainer.app.name)
    publisher = Publisher(trainer.app, store, force=True)
    publisher.offer(arrays, position=1, step=trainer.step, trained_until_ms=1)
    publisher.finish()
    rows = random_examples(trainer.app, 100, 8)
    scored = LightScorer(trainer.app, store.fetch()).logits(rows)
    assert np.abs(scored - trainer.predict(rows, averaged=True).light_logit).max() < 5e-3  # fp16
    assert scored.std() > 0.05


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "rocket"])
def test_lambda_reaches_the_light_net(folder: Path, teacher: Trainer, scheme: str) -> None:
    ends = []
    for weight in (0.0, 5.0):
        told = {"teacher_weight": weight} if scheme == "rocket_kd" else {"hint_weight": weight}
        trainer = Trainer(app_of(folder, scheme, generation_rows=ROWS, **told))
        learn(trainer, 3)
        ends.append(trainer.nets.light.mlp[0].get_parameter("weight").detach().clone())
    assert teacher.step
    assert not torch.equal(*ends)


#: scheme -> term -> nets that feel it ("rows": embeddings); after the table in model.schemes
FEELS: dict[str, dict[str, set[str]]] = {
    "offline": {"light": {"light", "rows"}, "booster": set(), "hint": {"light", "rows"}},
    "born_again": {"light": {"light", "rows"}, "booster": set(), "hint": {"light", "rows"}},
    "rocket_kd": {
        "light": {"light", "rows"}, "booster": {"booster", "rows"}, "hint": {"light", "rows"},
        "scheme": {"light", "rows"},
    },
    "one": {
        "light": {"light", "rows"}, "booster": {"light", "scheme", "rows"}, "hint": {"light", "rows"},
        "scheme": {"light", "scheme", "rows"},
    },
    "own_teacher": {"light": {"light", "rows"}, "scheme": {"light", "scheme", "rows"}},
    "net_aug": {"light": {"light", "rows"}, "scheme": {"light", "scheme", "rows"}},
}  # fmt: skip


@pytest.mark.parametrize("scheme", FEELS)
def test_each_net_feels_the_terms_that_the_table_says(folder: Path, teacher: Trainer, scheme: str) -> None:
    trainer = Trainer(app_of(folder, scheme, generation_rows=ROWS))
    learn(trainer, 2)
    said, terms, _, _ = judged(trainer)
    groups = {name: [p for p in net.parameters() if p.requires_grad] for name, net in trainer.nets.nets.items()}
    groups["rows"] = [touched.leaves[0] for _, touched in said.touched]
    found: dict[str, set[str]] = {}
    for term, part in terms.parts.items():
        found[term] = set()
        for name, group in groups.items():
            if part.requires_grad and group:
                gradients = torch.autograd.grad(part, group, retain_graph=True, allow_unused=True)
                found[term] |= {name} if any(g is not None and bool(g.any()) for g in gradients) else set()
    assert found == FEELS[scheme]
    assert teacher.step


def test_the_label_of_a_light_nets_exit_does_not_move_what_it_follows(folder: Path) -> None:
    trainer = Trainer(app_of(folder, "own_teacher", exit_share=1.0, exit_feature_weight=0.0))
    learn(trainer, 2)
    _, terms, _, _ = judged(trainer)
    assert torch.autograd.grad(
        terms.parts["scheme"], trainer.nets.light.mlp[-1].get_parameter("weight"), allow_unused=True
    ) == (None,)


def test_mutual_learning_moves_both_logits_as_the_papers_gradients_say() -> None:
    draw = torch.Generator().manual_seed(1)
    light, booster = (torch.randn(5, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2))
    label, weight = torch.tensor([1.0, 0, 1, 0, 0]).double(), torch.tensor([1.0, 2, 1, 0.5, 1]).double()
    hint = HINTS["bernoulli_kl"]
    both = both_ways(lambda a, b, _: hint(a, b))
    rocket_loss(
        light, booster, label, weight, torch.zeros(5).double(), hint=lambda a, b: both(a, b, label), hint_weight=0.3,
        gradient_block=False,
    ).total.backward()  # type: ignore[no-untyped-call]  # fmt: skip
    one, other = (1 / (1 + np.exp(-numbers(z))) for z in (light, booster))
    y, w = numbers(label), numbers(weight)
    assert light.grad is not None
    assert booster.grad is not None
    assert np.allclose(numbers(light.grad), w * (one - y + 0.3 * (one - other)) / 5)
    assert np.allclose(numbers(booster.grad), w * (other - y + 0.3 * (other - one)) / 5)


def test_a_mutual_booster_of_its_own_rows_feels_the_light_net(folder: Path) -> None:
    towers = []
    for weight in (0.0, 5.0):
        app = app_of(folder, "mutual", hint="bernoulli_kl", hint_weight=weight)
        trainer = Trainer(small_app(folder, {"model": {"sharing": "separate"}, "rocket": app.config.rocket.model_dump(
            include={"scheme", "gate", "hint", "hint_weight"})}))  # fmt: skip
        learn(trainer, 3)
        assert trainer.nets.booster is not None
        towers.append(torch.cat([p.detach().reshape(-1) for p in trainer.nets.booster.parameters()]))
    assert not torch.equal(*towers)


@pytest.mark.parametrize("scheme", TAUGHT)
def test_a_teacher_of_another_run_judges_as_it_did_and_stands_still(
    folder: Path, teacher: Trainer, scheme: str
) -> None:
    trainer = Trainer(app_of(folder, scheme))
    learn(trainer, 1)
    before = trainer.state()
    learn(trainer, 5, seed=1)
    mine = {name: tensor for name, tensor in trainer.state().items() if name.startswith("model.scheme.")}
    assert mine
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.items())
    rows = random_examples(trainer.app, 200, 5)
    said = trainer.nets.predict(to_batch(rows, trainer.app))
    logit = said.booster_B if scheme == "offline" else said.said.others[0]
    assert logit is not None
    assert np.allclose(numbers(logit), teacher.predict(rows, averaged=True).booster_logit, atol=1e-6)
    batch = random_examples(trainer.app, ROWS, 6)
    was = trainer.predict(batch)
    told = trainer.learn(batch).terms
    if scheme == "offline":
        assert was.booster_logit is not None
        assert told["hint"] == pytest.approx(np.mean((was.light_logit - was.booster_logit) ** 2), rel=1e-4)
        return
    z, t = was.light_logit / 4, teacher.predict(batch, averaged=True).booster_logit / 4
    q = 1 / (1 + np.exp(-t))
    apart = q * (np.logaddexp(0, -z) - np.logaddexp(0, -t)) + (1 - q) * (np.logaddexp(0, z) - np.logaddexp(0, t))
    assert told["scheme"] == pytest.approx(16 * np.mean(apart), rel=1e-4)


def test_to_go_on_the_teachers_folder_is_not_needed(folder: Path, teacher: Trainer, tmp_path: Path) -> None:
    trainer = Trainer(app_of(folder, "offline"))
    learn(trainer, 2)
    gone = small_app(folder, {"model": MODEL, "rocket": {"scheme": "offline", "teacher": str(tmp_path / "gone")}})
    second = Trainer(gone)
    second.restore(trainer.state(), trainer.meta())
    learn(second, 1, seed=2)
    assert second.step == trainer.step + 1
    with pytest.raises(ContractError, match="no such folder"):
        learn(Trainer(gone), 1)
    assert teacher.step


@pytest.mark.parametrize("over", [{"booster": {"hidden": [24]}}, {"booster": {"kind": "mlp"}}, {"embedding_dim": 8}])
def test_a_teacher_with_another_net_is_refused(folder: Path, teacher: Trainer, over: dict[str, Any]) -> None:
    app = small_app(
        folder, {"model": over, "rocket": {"scheme": "offline", "teacher": str(folder.with_name("teacher"))}}
    )
    with pytest.raises(ContractError, match="its booster net is not that of app"):
        learn(Trainer(app), 1)
    assert teacher.step


def test_each_generation_is_the_light_net_as_it_would_be_published_then(folder: Path) -> None:
    trainer = Trainer(app_of(folder, "born_again", generation_rows=3 * ROWS))
    rows = random_examples(trainer.app, 100, 5)
    weights = []
    for batch in range(7):
        published = trainer.predict(rows, averaged=True).light_logit
        weights.append(trainer.hint_weight)
        if batch in {3, 6}:
            teaching = trainer.predict(rows).booster_logit
            assert teaching is not None
            assert np.allclose(teaching, published, atol=1e-6)
        learn(trainer, 1, seed=batch)
        assert not np.allclose(trainer.predict(rows, averaged=True).light_logit, published, atol=1e-6)
    assert weights == [0, 0, 0, 0.7, 0.7, 0.7, 0.7]


def test_the_first_generation_may_come_from_another_run(folder: Path, teacher: Trainer) -> None:
    app = app_of(folder, "born_again", teacher=str(folder.with_name("teacher")))
    trainer = Trainer(app)
    learn(trainer, 1)
    rows = random_examples(app, 100, 5)
    assert np.allclose(trainer.predict(rows).booster_logit, teacher.predict(rows, averaged=True).light_logit, atol=1e-6)  # type: ignore[arg-type]
    assert trainer.hint_weight == 0.7


def test_exits_cost_what_their_formula_says(folder: Path) -> None:
    trainer = Trainer(app_of(folder, "own_teacher", exit_share=0.4, exit_feature_weight=0.05))
    learn(trainer, 3)
    said, terms, label, x = judged(trainer)
    scheme, layers, z = trainer.nets.scheme, layers_of(trainer, x)[1:], numbers(said.light_B)
    cost = 0.0
    for leave, layer in zip(scheme.exits, layers, strict=True):  # type: ignore[arg-type]
        exit_ = through(leave, layer)[:, 0]
        cost += 0.6 * cross_entropy(exit_, label) + 0.7 * 0.4 * np.mean((exit_ - z) ** 2)
    cost += 0.7 * 0.05 * np.mean(((through(scheme.maps[0], layers[0]) - layers[1]) ** 2).sum(1))  # type: ignore[index]
    assert terms.parts["scheme"].item() == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_widened_net_is_one_of_whole_matrices(folder: Path, seed: int) -> None:
    trainer = Trainer(app_of(folder, "net_aug", widen=3))
    learn(trainer, 3)
    torch.manual_seed(seed)
    batch = to_batch(random_examples(trainer.app, ROWS, 4), trainer.app)
    logit = numbers(trainer.nets.learn(batch, nullcontext()).said.others[0])
    said, _, _, x = judged(trainer)
    torch.manual_seed(seed)
    times, light, scheme = int(torch.randint(1, 4, ())), trainer.nets.light, trainer.nets.scheme
    across = [numbers(matrix) for matrix in scheme.across]  # type: ignore[union-attr]
    wide = x
    for layer, width in enumerate((8, 6)):
        below, more = (8, 6)[layer - 1] if layer else x.shape[1], times * width
        own = np.hstack([numbers(light.mlp[layer].get_parameter("weight")), np.zeros((width, wide.shape[1] - below))])
        if layer:
            own[:, below:] = across[0][:, : wide.shape[1] - below]
        into = scheme.into[layer]  # type: ignore[index]
        whole = np.vstack([own, numbers(into.weight)[:more, : wide.shape[1]]])
        bias = np.concatenate([numbers(light.mlp[layer].get_parameter("bias")), numbers(into.bias)[:more]])
        wide = np.maximum(wide @ whole.T + bias, 0)
    last = layers_of(trainer, x)[-1]
    beside = numbers(said.light_B) - last @ numbers(light.mlp[-1].get_parameter("weight"))[0]
    head = np.concatenate([numbers(light.mlp[-1].get_parameter("weight"))[0], across[1][0, : wide.shape[1] - 6]])
    assert np.allclose(logit, wide @ head + beside, atol=1e-5)
    assert np.abs(logit - numbers(said.light_B)).max() > 1e-3


def test_branches_gate_and_ensemble_cost_what_their_formula_says(folder: Path) -> None:
    trainer = Trainer(app_of(folder, "one", branches=2))
    learn(trainer, 3)
    said, terms, label, x = judged(trainer)
    scheme, layers, z = trainer.nets.scheme, layers_of(trainer, x), numbers(said.light_B)
    beside = z - through(trainer.nets.light.mlp[-1], layers[2])[:, 0]
    others = [
        beside + through(branch[2], np.maximum(through(branch[0], layers[1]), 0))[:, 0]
        for branch in scheme.others  # type: ignore[union-attr]
    ]
    raw = through(scheme.gate[0], layers[1])  # type: ignore[index]
    norm = scheme.gate[1]  # type: ignore[index]
    normed = (raw - raw.mean(0)) / np.sqrt(raw.var(0) + 1e-5) * numbers(norm.weight) + numbers(norm.bias)
    share = np.exp(np.maximum(normed, 0))
    share /= share.sum(1, keepdims=True)
    ensemble = (share * np.stack([z, *others], axis=1)).sum(1)
    assert said.booster_B is not None
    assert np.allclose(numbers(said.booster_B), ensemble, atol=1e-4)
    assert terms.parts["booster"].item() == pytest.approx(cross_entropy(ensemble, label), rel=1e-4)
    assert terms.parts["hint"].item() == pytest.approx(0.7 * np.mean((z - ensemble) ** 2), rel=1e-3)
    beside_cost = sum(cross_entropy(other, label) + 0.7 * np.mean((other - ensemble) ** 2) for other in others)
    assert terms.parts["scheme"].item() == pytest.approx(beside_cost, rel=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_gate_has_a_say_only_where_a_booster_may_lead(scheme: str) -> None:
    gate = HintGate(Rocket.model_validate({"scheme": scheme, "gate": True}))
    assert not gate.open
    assert gate.strength(100) == (0.0 if scheme in {"rocket", "offline", "rocket_kd"} else 1.0)


@pytest.mark.parametrize("scheme", ["mutual", "net_aug"])
def test_a_checkpoint_of_another_scheme_is_refused_and_one_that_names_none_is_rockets(
    folder: Path, scheme: str
) -> None:
    first = Trainer(app_of(folder, "rocket"))
    learn(first, 2)
    old = {name: value for name, value in first.meta().items() if name != "scheme"}
    second = Trainer(app_of(folder, "rocket"))
    second.restore(first.state(), old)
    assert second.meta() == first.meta()
    with pytest.raises(ContractError, match=r'rocket\.scheme = "rocket".*says "' + scheme + '"; set it back'):
        Trainer(app_of(folder, scheme)).restore(first.state(), old)


def test_a_teacher_of_rows_that_ids_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="ids that own their rows"):
        dynamic_app(tmp_path / "app", {"rocket": {"scheme": "born_again"}})
