"""One row goes a shorter way to its rows in the fused table than many do."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ContractError
from contracts.features import Feature
from nodes.light_part import Part

SIZES = (16, 3, 70_000)
NAMES = [f"f_{place}" for place in range(len(SIZES))]
PART = Part(
    ids=tuple(
        Feature(name=name, kind="id", column=name, side="user", buckets=size)
        for name, size in zip(NAMES, SIZES, strict=True)
    ),
    dense=(),
    starts=np.array([5, 21, 24], np.int64),
    rows=np.array(SIZES, np.int64),
    owners=(None,) * len(SIZES),
    weight=np.zeros((0, 0), np.float32),
    wide=None,
    pairs=None,
)


def row(ids: list[int]) -> dict[str, np.ndarray]:
    return {name: np.array([value], np.uint32) for name, value in zip(NAMES, ids, strict=True)}


@given(st.tuples(*(st.integers(0, size - 1) for size in SIZES)).map(list))
def test_the_short_way_of_one_row_gives_what_the_long_way_gives(ids: list[int]) -> None:
    short_BF, dense_BN = PART.inputs(row(ids), 1)
    long_BF, _ = PART.inputs(pl.DataFrame(row(ids)), 1)
    np.testing.assert_array_equal(short_BF, long_BF)
    assert short_BF.tolist() == [[5 + ids[0], 21 + ids[1], 24 + ids[2]]]
    assert (short_BF.dtype, short_BF.shape, dense_BN.shape) == (np.int64, (1, 3), (1, 0))


@given(st.integers(0, 2), st.integers(0, 5))
def test_one_row_with_an_id_beyond_its_table_is_refused(place: int, beyond: int) -> None:
    ids = [0, 0, 0]
    ids[place] = SIZES[place] + beyond
    with pytest.raises(ContractError, match=f"'f_{place}': the id {ids[place]} is beyond its {SIZES[place]} rows"):
        PART.inputs(row(ids), 1)


def test_a_row_without_one_of_its_features_is_refused() -> None:
    with pytest.raises(ContractError, match="'f_1' is not in the rows"):
        PART.inputs({name: values for name, values in row([1, 2, 3]).items() if name != "f_1"}, 1)
