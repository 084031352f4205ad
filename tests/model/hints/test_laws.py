"""Laws of every hint on the shelf; a new row of `METHODS` is held to them by being there."""

import numpy as np
import pytest
import torch

from contracts.errors import ContractError
from model.hints.shelf import METHODS, needs
from tests.model.hints.golden import Sample, drawn
from tests.model.hints.tensors import cost, tensors

AGREEING = [name for name, method in METHODS.items() if method.row.agrees]


def gradients(name: str, sample: Sample, *, block: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of the summed cost, for the student's and the teacher's tensors; zeros where there is none."""
    student, teacher, told = tensors(sample, learn=True)
    total = METHODS[name].cost(student, teacher, told, block=block).sum()
    found = torch.autograd.grad(total, (*student, *teacher), allow_unused=True)
    whole = [torch.zeros_like(x) if g is None else g for g, x in zip(found, (*student, *teacher), strict=True)]
    return whole[: len(student)], whole[len(student) :]


def sample_of(name: str, rows: int = 5) -> Sample:
    return drawn(needs(name).takes, np.random.default_rng(11), rows)


def same(sample: Sample) -> Sample:
    """Both nets agree."""
    return sample._replace(teacher=sample.student[: len(sample.teacher)])


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_is_the_derivative(name: str) -> None:
    student, teacher, told = tensors(sample_of(name, 4), learn=True)
    method = METHODS[name]

    def of(*both: torch.Tensor) -> torch.Tensor:
        return method.cost(both[: len(student)], both[len(student) :], told, block=False)

    learning = teacher if not method.row.teacher_only_tells else tuple(t.detach() for t in teacher)
    assert torch.autograd.gradcheck(of, (*student, *learning), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_teacher_feels_nothing_behind_the_block(name: str) -> None:
    ours, theirs = gradients(name, sample_of(name), block=True)
    assert all(float(g.abs().max()) == 0.0 for g in theirs)
    assert any(float(g.abs().max()) > 0.0 for g in ours)


@pytest.mark.parametrize("name", METHODS)
def test_without_the_block_the_teacher_learns_unless_it_only_tells(name: str) -> None:
    _, theirs = gradients(name, sample_of(name), block=False)
    learns = any(float(g.abs().max()) > 0.0 for g in theirs)
    assert learns != METHODS[name].row.teacher_only_tells


@pytest.mark.parametrize("name", AGREEING)
def test_a_hint_is_nothing_and_flat_where_both_agree(name: str) -> None:
    takes = needs(name).takes
    sample = same(drawn("equal" if takes == "hidden" else takes, np.random.default_rng(5), 5))
    if takes == "classes, label":
        sample = sample._replace(told=(np.arange(5),))
    assert float(cost(name, sample).abs().max()) < 1e-7
    ours, _ = gradients(name, sample, block=True)
    assert all(float(g.abs().max()) < 1e-6 for g in ours)


@pytest.mark.parametrize("name", AGREEING)
def test_a_hint_costs_something_where_they_do_not(name: str) -> None:
    assert float(cost(name, sample_of(name)).min()) > 0


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    sample, order = sample_of(name, 6), np.array([3, 0, 5, 1, 4, 2])
    moved = Sample(*(tuple(array[order] for array in part) for part in sample))
    here, there = cost(name, sample), cost(name, moved)
    assert torch.allclose(here[order] if here.dim() else here, there, atol=1e-12)


@pytest.mark.parametrize("kind", ["one row", "equal rows", "zeros", "tiny", "large"])
@pytest.mark.parametrize("name", METHODS)
def test_degenerate_tensors_give_finite_costs_and_gradients(name: str, kind: str) -> None:
    sample = sample_of(name, 1 if kind == "one row" else 4)

    def odd(array: np.ndarray) -> np.ndarray:
        factor = {"zeros": 0.0, "tiny": 1e-30, "large": 1e3}.get(kind, 1.0)
        return (np.repeat(array[:1], len(array), 0) if kind == "equal rows" else array * factor).astype(np.float32)

    sample = sample._replace(student=tuple(map(odd, sample.student)), teacher=tuple(map(odd, sample.teacher)))
    assert torch.isfinite(cost(name, sample)).all()
    for gradient in (*gradients(name, sample, block=False)[0], *gradients(name, sample, block=False)[1]):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if name != "adversarial"])
def test_tensors_that_do_not_fit_are_refused_in_one_sentence(name: str) -> None:
    sample = sample_of(name)
    takes = needs(name).takes
    if takes in {"hidden", "maps"}:  # other widths are theirs to take
        broken = sample._replace(student=tuple(a[:, 0] if takes == "hidden" else a[0] for a in sample.student))
    else:
        broken = sample._replace(student=tuple(np.concatenate((a, a), -1) for a in sample.student))
    with pytest.raises(ContractError) as error:
        cost(name, broken)
    assert "\n" not in str(error.value)
