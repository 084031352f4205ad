"""The rules of tables against independent forms in NumPy, in torch's own optimizer, and by their laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.training import Ftrl as FtrlSettings
from model.embeddings import Part, Table
from model.optimizers.ftrl import Ftrl
from model.optimizers.row_sgd import RowSgd
from model.optimizers.sparse_adam import SparseAdam

ROWS, WIDTH = 12, 3


def table(optimizer: str, lr: float = 0.05, init: float = 0.1, ftrl: FtrlSettings | None = None) -> Table:
    part = Part("embedding", WIDTH, lr, init, optimizer, ftrl or FtrlSettings())
    return Table(ROWS, (part,), accumulator_init=1e-12, generator=torch.Generator().manual_seed(4))


def minibatches(seed: int, steps: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Rows looked up, with repeats, and the gradient of each look-up."""
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randint(0, ROWS, (7,), generator=draw), torch.randn(7, WIDTH, generator=draw) * 0.3)
        for _ in range(steps)
    ]


def learnt(one: Table, rows_M: torch.Tensor, grad_MD: torch.Tensor, rows: int = 1) -> None:
    touched = one.touch(rows_M)
    (touched.leaves[0] * grad_MD).sum().backward()
    one.update(touched, rows=rows)


@pytest.mark.parametrize("seed", range(3))
def test_sparse_adam_is_that_of_torch(seed: int) -> None:
    ours = table("sparse_adam")
    theirs = torch.nn.Embedding.from_pretrained(ours.weights()["embedding"], freeze=False, sparse=True)
    adam = torch.optim.SparseAdam(theirs.parameters(), lr=0.05)
    for rows_M, grad_MD in minibatches(seed):
        learnt(ours, rows_M, grad_MD)
        adam.zero_grad()
        (theirs(rows_M) * grad_MD).sum().backward()
        adam.step()
        assert (ours.weights()["embedding"] - theirs.weight).abs().max().item() < 1e-6


def test_sparse_adam_leaves_rows_that_are_not_looked_up_and_their_moments() -> None:
    one = table("sparse_adam")
    learnt(one, torch.tensor([5]), torch.ones(1, WIDTH))
    before = one.slab.clone()
    learnt(one, torch.tensor([6]), torch.ones(1, WIDTH))
    assert torch.equal(one.slab[5], before[5])
    assert one.accumulators()["embedding.steps"].item() == 2


def test_sgd_goes_against_the_gradient() -> None:
    weight = torch.ones(2, 1)
    RowSgd(0.5).step(weight, torch.zeros(2, 0), torch.tensor([[2.0], [0.0]]), steps=1, rows=9)
    assert weight.tolist() == [[0.0], [1.0]]


class FtrlOracle:
    """McMahan et al., algorithm 1, one weight and one example's summed gradient at a time, in float64."""

    def __init__(self, alpha: float, beta: float, l1: float, l2: float) -> None:
        self.alpha, self.beta, self.l1, self.l2 = alpha, beta, l1, l2
        self.z, self.n = np.zeros((ROWS, WIDTH)), np.zeros((ROWS, WIDTH))

    def weight(self, i: int, j: int) -> float:
        z, n = self.z[i, j], self.n[i, j]
        if abs(z) <= self.l1:
            return 0.0
        return -(z - np.sign(z) * self.l1) / ((self.beta + np.sqrt(n)) / self.alpha + self.l2)

    def learn(self, i: int, j: int, g: float) -> None:
        w = self.weight(i, j)
        sigma = (np.sqrt(self.n[i, j] + g * g) - np.sqrt(self.n[i, j])) / self.alpha
        self.z[i, j] += g - sigma * w
        self.n[i, j] += g * g


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.0, 0.5]), st.integers(1, 50))
def test_ftrl_is_the_papers_algorithm(seed: int, l1: float, l2: float, rows: int) -> None:
    ours = table("ftrl", 0.1, 0.0, FtrlSettings(beta=0.5, l1=l1, l2=l2))
    oracle = FtrlOracle(0.1, 0.5, l1, l2)
    for rows_M, grad_MD in minibatches(seed, 6):
        learnt(ours, rows_M, grad_MD / rows, rows)
        summed = np.zeros((ROWS, WIDTH))
        np.add.at(summed, rows_M.numpy(), grad_MD.double().numpy())
        for i in np.unique(rows_M.numpy()):
            for j in range(WIDTH):
                oracle.learn(i, j, summed[i, j])
    expected = np.array([[oracle.weight(i, j) for j in range(WIDTH)] for i in range(ROWS)])
    np.testing.assert_allclose(ours.weights()["embedding"].numpy(), expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(ours.accumulators()["embedding.z"].numpy(), oracle.z, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.accumulators()["embedding.n"].numpy(), oracle.n, rtol=1e-4)


def test_a_weight_without_signal_is_zero_to_the_bit_and_one_with_signal_is_not() -> None:
    rule = Ftrl(0.1, 0.1, 1.0, 0.3)
    weight, state = torch.zeros(2, 1), torch.zeros(2, 2)
    for step in range(40):
        noise = 0.4 if step % 2 else -0.4
        rule.step(weight, state, torch.tensor([[noise], [-0.4]]), steps=step + 1, rows=1)
        assert weight[0].numpy().tobytes() == b"\0\0\0\0", "not even a negative zero"
    assert weight[1].item() > 0.05
    seen = set()
    for step in range(200):
        rule.step(weight, state, torch.tensor([[0.0], [0.4]]), steps=step + 41, rows=1)
        seen.add(np.sign(weight[1].item()))
    assert seen == {1.0, 0.0, -1.0}, "back through zero"


@pytest.mark.parametrize("rule", [SparseAdam(0.1), RowSgd(0.1), Ftrl(0.1, 0.0, 0.0, 0.0)])
def test_a_row_whose_gradient_was_always_0_stays(rule: SparseAdam | RowSgd | Ftrl) -> None:
    weight = torch.zeros(1, 2)
    state = torch.zeros(1, sum(slot.width for slot in rule.slots(2)))
    for step in range(3):
        rule.step(weight, state, torch.zeros(1, 2), steps=step + 1, rows=4)
    assert weight.tolist() == [[0.0, 0.0]]
    assert not state.any()


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "sparse_adam", "sgd", "ftrl"])
def test_a_loaded_table_is_the_saved_one_and_goes_on_as_it(optimizer: str) -> None:
    init = 0.0 if optimizer == "ftrl" else 0.1
    one, other = table(optimizer, init=init), table(optimizer, init=init)
    first, *rest = minibatches(9, 4)
    learnt(one, *first)
    other.load(one.weights(), one.accumulators())
    for some in rest:
        learnt(one, *some)
        learnt(other, *some)
    assert torch.equal(one.slab, other.slab)
    assert {k: v.tolist() for k, v in one.accumulators().items()} == {
        k: v.tolist() for k, v in other.accumulators().items()
    }


def test_what_is_not_finite_is_told_before_it_reaches_the_table() -> None:
    one = table("rowwise_adagrad")
    for value, fine in ((1e30, False), (float("nan"), False), (float("inf"), False), (1.0, True)):
        touched = one.touch(torch.tensor([2, 5]))
        (touched.leaves[0] * torch.tensor([[1.0], [value]])).sum().backward()
        before = one.slab.clone()
        assert one.prepare(touched) is fine
        assert torch.equal(one.slab, before)


def test_a_sum_that_overflows_is_no_reason_to_refuse_finite_numbers() -> None:
    one = table("rowwise_adagrad")
    one.slab[:, WIDTH] = 2e38
    touched = one.touch(torch.tensor([2, 5]))
    touched.leaves[0].sum().backward()
    assert one.prepare(touched)
