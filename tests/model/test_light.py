"""The light net is the formula of `contracts.weights`, written again in NumPy from its own weights."""

import math
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contracts.nets import Light
from model.light import LightNet

Array = NDArray[np.float64]
IDS, WIDTH, ROWS = 3, 4, 6
#: What follows a layer, by name, written from its definition.
ACTIVATIONS: dict[str, Any] = {
    "relu": lambda x, _: np.where(x > 0, x, 0),
    "prelu": lambda x, slopes: np.where(x > 0, x, slopes * x),
    "silu": lambda x, _: x / (1 + np.exp(-x)),
    "gelu": lambda x, _: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def by_hand(weights: dict[str, Array], light: Light, fields: Array, wide: Array, numbers: Array) -> Array:
    """The formula, pair by pair and layer by layer."""
    logit = np.full(len(fields), weights["bias"][0])
    if light.deep:
        x = np.concatenate([fields.reshape(len(fields), -1), numbers], axis=1)
        for layer in range(len(light.hidden) + 1):
            x = x @ weights[f"mlp.{layer}.weight"].T + weights[f"mlp.{layer}.bias"]
            if layer == len(light.hidden):
                break
            if light.norm == "layer":
                x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
                x = x * weights[f"norms.{layer}.weight"] + weights[f"norms.{layer}.bias"]
            x = ACTIVATIONS[light.activation](x, weights.get(f"slopes.{layer}"))
        logit = logit + x[:, 0]
    if light.wide:
        logit = logit + wide.sum(1) + numbers @ weights["wide_dense"]
    if light.fm:
        pairs = [(fields[:, i] * fields[:, j]).sum(1) for i, j in combinations(range(IDS), 2)]
        logit = logit + weights["fm"][0] * np.sum(pairs, axis=0)
    return logit


@pytest.mark.parametrize("dense", [0, 2])
@pytest.mark.parametrize("terms", list(product((True, False), repeat=3)), ids=str)
@pytest.mark.parametrize(("activation", "norm"), [("relu", "none"), *product(ACTIVATIONS, ["layer"])])
def test_the_light_net_computes_the_published_formula(
    activation: Any, norm: Any, terms: tuple[bool, bool, bool], dense: int
) -> None:
    deep, wide, fm = terms
    light = Light(deep=deep, wide=wide, fm=fm, hidden=(8, 5), activation=activation, norm=norm)
    torch.manual_seed(0)
    net = LightNet(IDS, dense, width=WIDTH, settings=light, prior_logit=-2.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    embedding, first_order, numbers = torch.randn(ROWS, IDS * WIDTH), torch.randn(ROWS, IDS), torch.randn(ROWS, dense)
    hidden: list[torch.Tensor] = []
    got = net(embedding, first_order if wide else None, numbers, hidden=hidden)
    assert torch.equal(got, net(embedding, first_order if wide else None, numbers)), "asking for layers changes nothing"
    assert [tuple(layer.shape) for layer in hidden] == [(ROWS, width) for width in light.layers]
    weights = {name: tensor.detach().double().numpy() for name, tensor in net.named_parameters()}
    fields = embedding.double().numpy().reshape(ROWS, IDS, WIDTH)
    expected = by_hand(weights, light, fields, first_order.double().numpy(), numbers.double().numpy())
    np.testing.assert_allclose(got.detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("trunk", [1, 2])
def test_the_layers_above_the_trunk_go_on_from_it(trunk: int) -> None:
    torch.manual_seed(0)
    light = Light(hidden=(8, 5), norm="layer", fm=True)
    net = LightNet(IDS, 2, width=WIDTH, settings=light, prior_logit=0.0, trunk=trunk)
    seen = torch.randn(ROWS, IDS * WIDTH), torch.randn(ROWS, IDS), torch.randn(ROWS, 2)
    whole: list[torch.Tensor] = []
    split: list[torch.Tensor] = []
    expected = net(*seen, hidden=whole)
    got = net(*seen, trunk_BH=net.lowest(seen[0], seen[2], split), hidden=split)
    assert torch.equal(got, expected)
    assert len(split) == len(whole) == 2
    assert all(map(torch.equal, split, whole))


def test_a_new_light_net_predicts_about_the_prior() -> None:
    torch.manual_seed(0)
    net = LightNet(3, 0, width=4, settings=Light(hidden=(8,), fm=True), prior_logit=-3.0)
    logit = net(torch.randn(200, 12) * 0.01, torch.zeros(200, 3), torch.zeros(200, 0))
    assert (logit + 3.0).abs().max().item() < 0.01


@pytest.mark.parametrize("light", [Light(hidden=(8,)), Light(deep=False, fm=True)])
def test_a_light_net_of_numbers_alone_works(light: Light) -> None:
    net = LightNet(0, 2, width=4, settings=light, prior_logit=0.0)
    assert net(torch.zeros(3, 0), None, torch.randn(3, 2)).shape == (3,)
