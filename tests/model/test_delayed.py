"""The label losses of late clicks: golden values against NumPy, and that on average they lead to the true logit."""

import numpy as np
import polars as pl
import pytest
import torch

from contracts.app import App
from contracts.errors import ContractError
from contracts.segments import Role
from model.delayed import MODES, Seen, dfm, es_dfm
from model.trainer import Trainer
from nodes.light_numpy import chance
from tests.random_examples import random_examples, small_app

OBSERVED = 0.25
WAIT, EARLY, LATE, END = 0, 1, 2, 3  # kinds of rows: settled positive, provisional, correction, settled negative
ROLE = np.array([Role.SETTLED, Role.PROVISIONAL, Role.CORRECTION, Role.SETTLED], np.uint8)
LABEL = np.array([1.0, 0.0, 1.0, 0.0])


def rows_of(kind: np.ndarray, elapsed: np.ndarray, heads: np.ndarray | None = None) -> Seen:
    told = None if heads is None else torch.tensor(heads, dtype=torch.float64)
    return Seen(torch.tensor(LABEL[kind]), torch.tensor(ROLE[kind]), torch.tensor(elapsed), OBSERVED, told)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def golden(mode: str, z, kind, elapsed, heads):
    """The formulas of the papers, row by row."""
    p, y = sigmoid(z), LABEL[kind]
    of_positive, of_negative = -np.log(p), -np.log(1 - p)
    plain = np.where(y > 0, of_positive, of_negative)
    both = (kind == WAIT) * of_negative  # told once: stands for its negative too
    if mode == "fnc":
        return plain + both
    if mode == "fake_negative":
        return np.where(y > 0, (1 + p) * of_positive, 0) + (1 - p) * (1 + p) * ((y == 0) * of_negative + both)
    if mode == "es_dfm":
        late, real = sigmoid(heads[:, 0]), sigmoid(heads[:, 1])
        return np.where(kind == END, 0, np.where(y > 0, 1 + late, (1 + late) * real) * plain)
    rate = np.log1p(np.exp(heads[:, 0]))
    clicked = -np.log(p) - np.log(rate) + rate * elapsed
    silent = -np.log(1 - p + p * np.exp(-rate * elapsed))
    until_told = np.log(1 - p + p * np.exp(-rate * OBSERVED))
    return np.where(y > 0, clicked, silent) + np.where(kind >= LATE, until_told, 0)


def drawn(rows: int = 64, seed: int = 0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, rows)
    elapsed = np.select(
        [kind == WAIT, kind == EARLY, kind == LATE],
        [rng.uniform(0, OBSERVED, rows), np.full(rows, OBSERVED), rng.uniform(OBSERVED, 1, rows)],
        1.0,
    )
    return rng.normal(0, 2, rows), kind, elapsed, rng.normal(0, 1, (rows, 2))


@pytest.mark.parametrize("mode", sorted(MODES))
def test_each_loss_is_the_formula_of_its_paper(mode):
    z, kind, elapsed, heads = drawn()
    got = MODES[mode].loss(torch.tensor(z), rows_of(kind, elapsed, heads), 0)
    np.testing.assert_allclose(got.numpy(), golden(mode, z, kind, elapsed, heads), rtol=1e-9)


def test_the_heads_of_es_dfm_learn_from_final_labels_alone():
    _, kind, elapsed, heads = drawn()
    late, real = -np.log(sigmoid(heads)), -np.log(sigmoid(-heads))
    wanted = np.where(kind == LATE, late[:, 0], real[:, 0]) + np.where(kind == LATE, real[:, 1], late[:, 1]) * (
        kind >= LATE
    )
    got = es_dfm.head_loss(rows_of(kind, elapsed, heads))
    np.testing.assert_allclose(got.numpy(), np.where(kind == EARLY, 0, wanted), rtol=1e-9)


@pytest.mark.parametrize(("click", "kinds"), [(0.7, [EARLY, LATE]), (None, [EARLY, END]), (0.1, [WAIT])])
def test_the_rows_of_one_impression_add_up_to_its_dfm_likelihood(click, kinds):
    z, rate = 0.3, 1.7
    head = np.log(np.expm1(rate))
    elapsed = np.array([{WAIT: click, EARLY: OBSERVED, LATE: click, END: 1.0}[kind] for kind in kinds], np.float64)
    heads = np.full((len(kinds), 2), head)
    got = dfm.loss(torch.full((len(kinds),), z, dtype=torch.float64), rows_of(np.array(kinds), elapsed, heads), 1)
    p = sigmoid(z)
    whole = -np.log(p * rate * np.exp(-rate * click)) if click else -np.log(1 - p + p * np.exp(-rate))
    assert got.sum().item() == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("z", [-60.0, 60.0])
def test_no_loss_nor_gradient_overflows(mode, z):
    kind = np.arange(4)
    logit = torch.full((4,), z, requires_grad=True)
    heads = torch.full((4, 2), -90.0, requires_grad=True)
    seen = rows_of(kind, np.array([0.1, OBSERVED, 0.5, 1.0]))
    cost = MODES[mode].loss(logit, seen._replace(heads_BK=heads), 0)
    cost.sum().backward()
    assert torch.isfinite(cost).all()
    assert torch.isfinite(logit.grad).all()
    assert heads.grad is None or torch.isfinite(heads.grad).all()


def stream(p: float, rate: float, rows: int, seed: int = 0):
    """Rows of impressions with click chance p and exponential delays of that rate, and the final labels."""
    rng = np.random.default_rng(seed)
    delay = np.where(rng.random(rows) < p, rng.exponential(1 / rate, rows), np.inf)
    return delay, delay <= 1


def expected_gradient(mode: str, p: float, z: float, late: float) -> float:
    """Of a logit under the exact shares in which rows come: p clicks, of which the share `late` after the first row."""
    z_4 = torch.full((4,), z, dtype=torch.float64, requires_grad=True)
    ends = mode not in {"fake_negative", "fnc"}
    share = torch.tensor([p * (1 - late), 1 - p * (1 - late), p * late, (1 - p) * ends], dtype=torch.float64)
    of_late, real = p * late, (1 - p) / (1 - p * (1 - late))
    heads = np.log([[of_late / (1 - of_late), real / (1 - real)]]) * np.ones((4, 1))
    cost = MODES[mode].loss(z_4, rows_of(np.arange(4), np.array([0.1, OBSERVED, 0.5, 1.0]), heads), 0)
    (share * cost).sum().backward()
    return float(z_4.grad.sum())


@pytest.mark.parametrize("mode", ["fake_negative", "fnc", "es_dfm"])
@pytest.mark.parametrize("p", [0.02, 0.3, 0.45])
def test_the_expected_gradient_is_zero_at_the_true_chance_and_pulls_to_it(mode, p):
    told = np.log(p / (1 - p)) if mode != "fnc" else np.log(p)  # fnc learns p / (1 + p), whose odds are p
    assert chance(np.array([told]), "odds" if mode == "fnc" else "sigmoid")[0] == pytest.approx(p)
    assert expected_gradient(mode, p, told, 0.4) == pytest.approx(0, abs=1e-12)
    assert expected_gradient(mode, p, told + 0.5, 0.4) > 0 > expected_gradient(mode, p, told - 0.5, 0.4)


def test_weighing_is_what_removes_the_bias_of_fake_negatives():
    p = 0.3
    z = np.log(p / (1 - p))
    assert abs(expected_gradient("fake_negative", p, z, 1.0)) < 1e-12 < 0.05 < expected_gradient("fnc", p, z, 1.0)


def test_dfm_finds_chance_and_rate_of_exponential_delays():
    p, rate = 0.3, 2.5
    torch.set_num_threads(1)  # as a trainer does: two threads wait for each other
    delay, clicked = stream(p, rate, 4_000)
    early, late = delay <= OBSERVED, clicked & (delay > OBSERVED)
    kinds = [np.full(early.sum(), WAIT), np.full((~early).sum(), EARLY), np.full(late.sum(), LATE)]
    kinds.append(np.full((~clicked).sum(), END))
    elapsed = [delay[early], np.full((~early).sum(), OBSERVED), delay[late], np.ones((~clicked).sum())]
    kind, seen_for = np.concatenate(kinds), np.concatenate(elapsed)
    z, head = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    descent = torch.optim.LBFGS([z, head], max_iter=25, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        descent.zero_grad()
        rows = rows_of(kind, seen_for)._replace(heads_BK=head.expand(len(kind), 1))
        cost = dfm.loss(z.expand(len(kind)), rows, 0).sum() / len(delay)
        cost.backward()
        return cost

    descent.step(step)
    assert sigmoid(z.item()) == pytest.approx(p, abs=0.015)
    assert np.log1p(np.exp(head.item())) == pytest.approx(rate, rel=0.06)


def delayed_app(tmp_path, mode: str, **more) -> App:
    return small_app(tmp_path / "app", {"labels": {"mode": mode}, "train": {"precision": "fp32"}, **more})


def told_rows(app: App, rows: int, seed: int = 0) -> pl.DataFrame:
    """Random rows of the roles that a mode gives."""
    frame = random_examples(app, rows, seed)
    ends = (0, 1, 2, 3) if app.config.labels.mode in {"es_dfm", "dfm"} else (0, 1, 2)
    kind = np.random.default_rng(seed).choice(ends, rows)
    elapsed = app.config.labels.wait_s * np.array([0.01, 0.1, 0.5, 1.0])[kind]
    columns = {"role": ROLE[kind], "label": LABEL[kind].astype(np.uint8), "elapsed_s": elapsed.astype(np.float32)}
    return frame.with_columns(pl.Series(name, values) for name, values in columns.items())


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_a_resumed_trainer_goes_on_bit_for_bit_and_the_heads_are_in_its_state(tmp_path, mode, sharing):
    app = delayed_app(tmp_path, mode, model={"sharing": sharing})
    rows = told_rows(app, 640)
    whole, first, second = Trainer(app), Trainer(app), Trainer(app)
    for start in range(0, 640, 64):
        whole.learn(rows[start : start + 64])
    for start in range(0, 320, 64):
        first.learn(rows[start : start + 64])
    second.restore(first.state(), first.meta())
    for start in range(320, 640, 64):
        second.learn(rows[start : start + 64])
    one, other = whole.state(), second.state()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    heads = [key for key in one if key.startswith("model.heads.")]
    assert bool(heads) == bool(MODES[mode].start)
    assert all(not torch.equal(one[key], Trainer(app).state()[key]) for key in heads), "they learn"


def test_a_checkpoint_of_another_mode_is_refused(tmp_path):
    wait = Trainer(small_app(tmp_path / "app"))
    with pytest.raises(ContractError, match=r'labels\.mode = "wait"'):
        Trainer(delayed_app(tmp_path, "fnc")).restore(wait.state(), wait.meta())


def test_no_gradient_leaves_the_heads(tmp_path):
    app = delayed_app(tmp_path, "es_dfm")
    trainer = Trainer(app)
    heads = trainer.nets.heads
    assert heads is not None
    embedding = torch.randn(4, heads.hidden.in_features - len(app.layout.light_dense), requires_grad=True)
    dense = torch.randn(4, len(app.layout.light_dense), requires_grad=True)
    heads(embedding, dense).sum().backward()
    assert embedding.grad is None
    assert dense.grad is None


def test_torch_and_the_scorer_make_the_same_chances_of_the_odds_link(tmp_path):
    trainer = Trainer(delayed_app(tmp_path, "fnc"))
    told = trainer.predict(told_rows(trainer.app, 100))
    np.testing.assert_allclose(told.light, chance(told.light_logit.astype(np.float32), "odds"), rtol=1e-6)
    assert chance(np.array([3.0]), "odds") == 1.0
