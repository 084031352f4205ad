"""Each hint equals its formula in NumPy: on fixed tensors to 1e-12 (the golden rows), and on random ones."""

import sys
from collections.abc import Mapping
from inspect import signature

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contracts.hint_names import hint_names
from model.hints.geometry import scaled
from model.hints.shelf import METHODS, needs
from tests.model.hints.golden import GOLDEN, Array, Golden, Sample, drawn, fixed
from tests.model.hints.tensors import cost

SCALED = [name for name, method in METHODS.items() if "scaling" in signature(method.loss).parameters]
ROWS = [(name, row) for name, rows in GOLDEN.items() for row in rows]
#: What was asked for to 1e-12: hint, options, value.
ASKED = [
    ("kd", {"temperature": 4.0}, 0.3388857389486591),
    ("logit_mse", {}, 1.1253410829679955),
    ("class_logit_mse", {"scaling": "mean"}, 1.1253410829679955),
    ("fitnet", {"scaling": "mean"}, 0.36243408215386924),
    ("rkd_distance", {}, 0.018548823159512267),
    ("pkt", {}, 0.0040041738601628045),
    ("mmd_linear", {}, 0.052939712512889064),
    ("bernoulli_kd", {"temperature": 2.0}, 0.08236856477459621),
]


def test_the_tables_and_the_golden_rows_name_the_same_hints() -> None:
    assert METHODS.keys() == hint_names().keys() == GOLDEN.keys()
    assert all(not rows[0].options for rows in GOLDEN.values())


@pytest.mark.parametrize(("name", "options", "value"), ASKED)
def test_the_values_that_were_asked_for(name: str, options: dict[str, object], value: float) -> None:
    sample = fixed("classes") if name == "logit_mse" else fixed(needs(name).takes)
    assert abs(float(cost(name, sample, **options).mean()) - value) <= 1e-12


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_hint_gives_its_golden_value(name: str, row: Golden) -> None:
    sample = fixed(needs(name).takes)
    assert float(cost(name, sample, **row.options).mean()) == pytest.approx(row.value, rel=1e-12, abs=1e-12)
    wanted: Array = row.formula(*sample.student, *sample.teacher, *sample.told)
    assert float(np.mean(wanted)) == pytest.approx(row.value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("name", "row"), ROWS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 9))
def test_a_hint_equals_its_formula_on_random_tensors(name: str, row: Golden, seed: int, rows: int) -> None:
    takes = "equal" if row.options.get("scaling") == "neighbours" else needs(name).takes  # which is for equal widths
    sample = drawn(takes, np.random.default_rng(seed), rows)
    got = cost(name, sample, **row.options)
    wanted = np.asarray(row.formula(*sample.student, *sample.teacher, *sample.told))
    assert tuple(got.shape) == wanted.shape
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", METHODS)
def test_a_hint_costs_the_same_in_float32(name: str) -> None:
    sample = drawn(needs(name).takes, np.random.default_rng(3))
    single = Sample(*(tuple(a.astype(np.float32) if a.dtype == np.float64 else a for a in part) for part in sample))
    got = cost(name, single)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), cost(name, sample).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCALED)
def test_every_scaling_of_a_hint_has_a_golden_row(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()

    def noted(scaling: str, forms: Mapping[str, Tensor]) -> Tensor:
        known.update(forms)
        return scaled(scaling, forms)

    loss = METHODS[name].loss
    monkeypatch.setattr(sys.modules[loss.__module__], "scaled", noted)
    cost(name, fixed(needs(name).takes))
    golden = {signature(loss).parameters["scaling"].default, *(row.options.get("scaling") for row in GOLDEN[name])}
    inner = {"gan_compression": {"sum", "norm"}}.get(name, set())  # of the terms that it is made of
    assert known - inner <= golden
    assert len(golden - {None}) > 1
