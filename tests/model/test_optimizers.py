"""Row-wise Adagrad and Adam against the plainest form of each."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model.optimizers.flat import FlatOptimizer
from model.optimizers.groups import group_rows, sum_by_row
from model.optimizers.rowwise_adagrad import rowwise_adagrad


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 5))
def test_what_falls_on_one_row_is_summed_once(rows: list[int], width: int) -> None:
    values = torch.arange(float(len(rows) * width)).view(len(rows), width)
    groups = group_rows(torch.tensor(rows))
    expected = torch.zeros(10, width).index_add_(0, torch.tensor(rows), values)
    assert groups.rows_U.tolist() == sorted(set(rows))
    assert torch.equal(sum_by_row(groups, values), expected[groups.rows_U])


def test_the_sum_has_the_same_bits_every_time() -> None:
    torch.manual_seed(0)
    rows, values = torch.randint(0, 50, (5000,)), torch.randn(5000, 8)
    sums = [sum_by_row(group_rows(rows), values) for _ in range(3)]
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])


def test_rowwise_adagrad_is_the_published_rule() -> None:
    torch.manual_seed(0)
    weight, accumulator = torch.randn(4, 3), torch.full((4, 1), 1e-12)
    expected, squares = weight.double(), torch.full((4, 1), 1e-12, dtype=torch.float64)
    for _ in range(5):
        grad = torch.randn(4, 3)
        rowwise_adagrad(weight, accumulator, grad, lr=0.1)
        squares += (grad.double() ** 2).mean(1, keepdim=True)
        expected -= 0.1 * grad.double() / squares.sqrt()
    assert (weight - expected).abs().max().item() < 1e-5


def test_a_tiny_gradient_moves_a_row_as_far_as_a_large_one() -> None:
    """The accumulator starts near 0: at 0.1 a gradient of 1e-6 would leave the row frozen."""
    for size in (1e-6, 1e-3, 1.0):
        weight, accumulator = torch.zeros(1, 4), torch.full((1, 1), 1e-12)
        rowwise_adagrad(weight, accumulator, torch.full((1, 4), size), lr=0.05)
        assert -0.051 < weight.mean().item() < -0.03


def test_a_row_without_gradient_stays() -> None:
    weight, accumulator = torch.ones(1, 4), torch.full((1, 1), 1e-12)
    rowwise_adagrad(weight, accumulator, torch.zeros(1, 4), lr=0.05)
    assert torch.equal(weight, torch.ones(1, 4))


def test_flat_adam_moves_parameters_by_the_published_rule() -> None:
    def nets() -> list[nn.Module]:
        torch.manual_seed(3)
        return [nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), nn.Linear(6, 1)]

    ours, theirs = nets(), nets()
    flat = FlatOptimizer(ours, lr=0.01)
    plain = [p for net in theirs for p in net.parameters()]
    first, second = ([torch.zeros_like(p) for p in plain] for _ in range(2))
    for step in range(20):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        flat.clear()
        for p in plain:
            p.grad = None
        for a, b in zip(ours, theirs, strict=True):
            a(x).square().mean().backward()
            b(x).square().mean().backward()
        flat.step()
        with torch.no_grad():
            for p, m, v in zip(plain, first, second, strict=True):
                m.lerp_(p.grad, 0.1)
                v.lerp_(p.grad**2, 0.001)
                p.sub_(0.01 * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8))
    for a, b in zip(ours, theirs, strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert (p - q).abs().max().item() < 1e-5


def test_gradient_norms_are_told_net_by_net() -> None:
    nets = [nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)]
    adam = FlatOptimizer(nets, lr=0.01)
    nets[1](torch.tensor([[3.0, 4.0]])).sum().backward()
    assert adam.gradient_norms() == [0.0, 5.0]
