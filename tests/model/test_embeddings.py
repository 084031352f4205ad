"""Tables of embedding rows."""

from typing import get_args

import pytest
import torch

from contracts.training import WideOptimizer
from model.embeddings import Part, Table

PARTS = (Part("embedding", 3, lr=0.1, init=0.01), Part("wide", 1, lr=0.02, init=0.0))


def table(seed: int = 0) -> Table:
    return Table(20, PARTS, accumulator_init=1e-12, generator=torch.Generator().manual_seed(seed))


def test_touching_gives_the_rows_that_a_look_up_gives() -> None:
    rows = torch.tensor([4, 4, 19, 0])
    one = table()
    for leaf, looked in zip(one.touch(rows).leaves, one.look_up(rows), strict=True):
        assert torch.equal(leaf.detach(), looked)
        assert leaf.requires_grad
    assert torch.equal(one.look_up(rows)[0], one.weights()["embedding"][rows])


def test_only_touched_rows_move_and_a_repeated_row_moves_by_the_sum() -> None:
    one, two = table(), table()
    before = one.weights()["embedding"]
    touched = one.touch(torch.tensor([5, 7, 5]))
    (touched.leaves[0].sum() + touched.leaves[1].sum()).backward()
    one.update(touched)
    after = one.weights()["embedding"]
    still = [row for row in range(20) if row not in (5, 7)]
    assert torch.equal(after[still], before[still])
    assert (after[[5, 7]] < before[[5, 7]]).all()
    summed = two.touch(torch.tensor([5, 7]))
    (summed.leaves[0] * torch.tensor([[2.0], [1.0]])).sum().backward()
    two.update(summed)
    assert torch.equal(two.weights()["embedding"], after)


def test_each_part_has_its_own_rate_and_accumulator() -> None:
    one = table()
    touched = one.touch(torch.tensor([5]))
    (touched.leaves[0].sum() + 2 * touched.leaves[1].sum()).backward()
    one.update(touched)
    assert one.weights()["wide"][5].item() == torch.tensor(-0.02).item()
    accumulators = one.accumulators()
    assert (accumulators["embedding"][5].item(), accumulators["wide"][5].item()) == (1.0, 4.0)
    assert accumulators["wide"][4].item() == torch.tensor(1e-12).item()


def test_a_part_that_no_loss_reaches_stays() -> None:
    one = table()
    touched = one.touch(torch.tensor([5]))
    touched.leaves[0].sum().backward()
    one.update(touched)
    assert one.accumulators()["wide"][5].item() == torch.tensor(1e-12).item()


def test_a_loaded_table_is_the_saved_one_bit_for_bit() -> None:
    one, other = table(0), table(1)
    assert not torch.equal(one.slab, other.slab)
    other.load(one.weights(), one.accumulators())
    assert torch.equal(one.slab, other.slab)


def test_no_look_ups_change_nothing() -> None:
    one = table()
    before = one.slab.clone()
    one.update(one.touch(torch.zeros(0, dtype=torch.int64)))
    assert torch.equal(one.slab, before)


@pytest.mark.parametrize("optimizer", get_args(WideOptimizer))
def test_a_row_that_begins_anew_moves_as_one_that_never_moved(optimizer: str) -> None:
    def learnt(one: Table, row: int) -> None:
        touched = one.touch(torch.tensor([row, 3]))
        (touched.leaves[0].square().sum() + 3 * touched.leaves[1].sum()).backward()
        one.update(touched)

    parts = (PARTS[0], Part("wide", 1, lr=0.02, init=0.0, optimizer=optimizer))
    one, fresh = (Table(20, parts, accumulator_init=1e-12, generator=torch.Generator().manual_seed(0)) for _ in "ab")
    for _ in range(3):
        learnt(one, 5)
        learnt(fresh, 4)
    before = one.slab.clone()
    one.take_moved()
    one.reset_rows(torch.tensor([5]), {"embedding": fresh.weights()["embedding"][5:6]})
    assert torch.equal(one.slab[5], fresh.slab[5])
    assert torch.equal(one.slab[:5], before[:5])
    assert one.take_moved().tolist() == [5]
    learnt(one, 5)
    learnt(fresh, 5)
    assert torch.equal(one.slab[5], fresh.slab[5])
