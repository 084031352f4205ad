"""Each booster against its paper's formula, written again in NumPy from the net's own weights."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contracts.errors import ContractError
from contracts.nets import Booster
from model.activations import activation
from model.boosters import BOOSTERS, BoosterInput, Sizes, make_booster
from model.layers import DeepLayers, Hidden

ROWS, IDS, WIDTH, DENSE, LONG = 7, 4, 6, 3, 5
SIZES = Sizes(ids=IDS, sequences=1, dense=DENSE, width=WIDTH, queries=(2,))
FIELDS = IDS + 1
Array = NDArray[np.float64]


class Seen:
    """The same input in torch and in NumPy."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        fields, pooled = (torch.randn(ROWS, n, WIDTH, generator=draw) for n in (IDS, 1))
        dense, history = torch.randn(ROWS, DENSE, generator=draw), torch.randn(ROWS, LONG, WIDTH, generator=draw)
        mask = torch.arange(LONG) < torch.tensor([[0], [1], [5], [2], [3], [4], [5]])
        self.torch = BoosterInput(fields, pooled, dense, ((history, mask),))
        self.ad, self.history, self.mask = fields[:, 2].double().numpy(), history.double().numpy(), mask.numpy()
        self.dense = dense.double().numpy()
        self.vectors = np.concatenate([fields.double().numpy(), pooled.double().numpy()], axis=1)
        self.fields = fields.double().numpy()
        self.flat = np.concatenate([self.vectors.reshape(ROWS, -1), self.dense], axis=1)


class Weights:
    """A net's weights, each shifted off its start so that none is without effect; and what layers compute."""

    def __init__(self, net: torch.nn.Module) -> None:
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.05)
        self._found = {name: tensor.double().numpy() for name, tensor in net.state_dict().items()}

    def __getitem__(self, name: str) -> Array:
        return self._found[name]

    def lin(self, name: str, x: Array) -> Array:
        bias = self._found.get(f"{name}.bias")
        product = x @ self[f"{name}.weight"].T
        return product if bias is None else product + bias

    def deep(self, name: str, x: Array, layers: int = 2) -> Array:
        for index in range(layers):
            x = relu(self.lin(f"{name}.layers.{index}", x))
        return x

    def normed(self, name: str, x: Array) -> Array:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return (x - x.mean(-1, keepdims=True)) / spread * self[f"{name}.weight"] + self[f"{name}.bias"]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    grown = np.exp(x - x.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def mlp(w: Weights, s: Seen) -> Array:
    return w.lin("head", w.deep("deep", s.flat))[:, 0]


def wdl(w: Weights, s: Seen) -> Array:
    return mlp(w, s) + w.lin("wide", s.flat)[:, 0]


def deepfm(w: Weights, s: Seen) -> Array:
    pairs = sum((s.vectors[:, i] * s.vectors[:, j]).sum(1) for i, j in combinations(range(FIELDS), 2))
    return wdl(w, s) + pairs


def cross_whole(w: Weights, x0: Array, x: Array, at: str) -> Array:
    return x0 * w.lin(f"{at}.matrix", x) + x


def cross_low(w: Weights, x0: Array, x: Array, at: str) -> Array:
    return x0 * w.lin(f"{at}.up", w.lin(f"{at}.down", x)) + x


def cross_mixed(w: Weights, x0: Array, x: Array, at: str) -> Array:
    gate, rank = softmax(w.lin(f"{at}.gate", x)), w[f"{at}.core_KRR"].shape[1]
    out = x.copy()
    for expert in range(gate.shape[1]):
        low = np.tanh(x @ w[f"{at}.down.weight"][expert * rank : (expert + 1) * rank].T)
        low = np.tanh(low @ w[f"{at}.core_KRR"][expert])
        out += gate[:, [expert]] * x0 * (low @ w[f"{at}.up_KRI"][expert] + w[f"{at}.bias_I"])
    return out


def dcn(cross: Callable[..., Array], *, stacked: bool = False) -> Callable[[Weights, Seen], Array]:
    def forward(w: Weights, s: Seen) -> Array:
        x = s.flat
        for index in range(2):
            x = cross(w, s.flat, x, f"crosses.{index}")
        last = w.deep("deep", x) if stacked else np.concatenate([x, w.deep("deep", s.flat)], 1)
        return w.lin("head", last)[:, 0]

    return forward


def fibinet(kind: str) -> Callable[[Weights, Seen], Array]:
    def pairs(w: Weights, name: str, vectors: Array) -> Array:
        found = []
        for place, (i, j) in enumerate(combinations(range(FIELDS), 2)):
            matrix = w[f"{name}.matrix_KDD"][{"all": 0, "each": i, "interaction": place}[kind]]
            found.append((vectors[:, i] @ matrix) * vectors[:, j])
        return np.concatenate(found, 1)

    def forward(w: Weights, s: Seen) -> Array:
        squeezed = relu(w.lin("importance.squeeze", s.vectors.mean(2)))
        weighed = s.vectors * relu(w.lin("importance.excite", squeezed))[:, :, None]
        x = np.concatenate([pairs(w, "plain", s.vectors), pairs(w, "weighed", weighed), s.dense], 1)
        return w.lin("head", w.deep("deep", x))[:, 0] + w.lin("first", s.flat)[:, 0]

    return forward


def autoint(w: Weights, s: Seen) -> Array:
    heads, width = 2, 4
    x = np.concatenate([s.vectors, s.dense[:, :, None] * w["number_ND"]], 1)
    for index in range(2):
        query, key, value, residual = np.split(x @ w[f"layers.{index}.project.weight"].T, 4, axis=2)
        out = residual.copy()
        for head in range(heads):
            cut = slice(head * width, (head + 1) * width)
            score = softmax(query[:, :, cut] @ key[:, :, cut].swapaxes(1, 2) / np.sqrt(width))
            out[:, :, cut] += score @ value[:, :, cut]
        x = relu(out)
    last = np.concatenate([x.reshape(ROWS, -1), w.deep("deep", s.flat)], 1)
    return w.lin("head", last)[:, 0]


def din(w: Weights, s: Seen) -> Array:
    pooled = np.zeros((ROWS, WIDTH))
    for row in range(ROWS):
        for place in np.flatnonzero(s.mask[row]):
            h, ad = s.history[row, place], s.ad[row]
            x = w.lin("units.0.hidden", np.concatenate([h, ad, ad - h, ad * h]))
            mean, var = (w[f"units.0.dice.standardise.running_{name}"] for name in ("mean", "var"))
            p = sigmoid((x - mean) / np.sqrt(var + 1e-8))
            x = x * (p + w["units.0.dice.alpha"] * (1 - p))
            pooled[row] += h * w.lin("units.0.score", x)[0]
    x = np.concatenate([s.fields.reshape(ROWS, -1), pooled, s.dense], 1)
    return w.lin("head", w.deep("deep", x))[:, 0]


def masknet(*, parallel: bool) -> Callable[[Weights, Seen], Array]:
    def forward(w: Weights, s: Seen) -> Array:
        normed = [w.normed(f"norms.{field}", s.vectors[:, field]) for field in range(FIELDS)]
        x = np.concatenate([*normed, s.dense], 1)
        found = []
        for index in range(2):
            at = f"blocks.{index}"
            mask = w.lin(f"{at}.project", relu(w.lin(f"{at}.aggregate", s.flat)))
            out = relu(w.normed(f"{at}.norm", w.lin(f"{at}.hidden", mask * x)))
            found.append(out)
            x = x if parallel else out
        last = np.concatenate(found, 1) if parallel else found[-1]
        return w.lin("head", w.deep("deep", last, layers=1))[:, 0]

    return forward


def finalmlp(w: Weights, s: Seen) -> Array:
    one, two = (w.deep(f"streams.{i}", 2 * sigmoid(w.lin(f"gates.{i}.weigh", s.flat)) * s.flat) for i in range(2))
    out = w.lin("head", one)[:, 0] + w.lin("fusion.second", two)[:, 0]
    for head, matrix in enumerate(w["fusion.pair_KDD"]):
        cut = slice(head * len(matrix), (head + 1) * len(matrix))
        out += np.einsum("bd,de,be->b", one[:, cut], matrix, two[:, cut])
    return out


_CASES: list[tuple[str, dict[str, Any], Callable[[Weights, Seen], Array]]] = [
    ("mlp", {}, mlp),
    ("wdl", {}, wdl),
    ("deepfm", {}, deepfm),
    ("dcn_v2", {"cross_rank": 0}, dcn(cross_whole)),
    ("dcn_v2", {"cross_rank": 3}, dcn(cross_low)),
    ("dcn_v2", {"cross_rank": 3, "cross_experts": 2}, dcn(cross_mixed)),
    ("dcn_v2", {"cross_rank": 3, "cross_stacked": True}, dcn(cross_low, stacked=True)),
    *[("fibinet", {"bilinear": kind, "squeeze_ratio": 2}, fibinet(kind)) for kind in ("all", "each", "interaction")],
    ("autoint", {"attention_layers": 2, "attention_heads": 2, "attention_width": 4}, autoint),
    ("din", {}, din),
    ("masknet", {"mask_blocks": 2}, masknet(parallel=True)),
    ("masknet", {"mask_blocks": 2, "mask_parallel": False}, masknet(parallel=False)),
    ("finalmlp", {"attention_heads": 2}, finalmlp),
]


@pytest.mark.parametrize(("kind", "settings", "forward"), _CASES)
def test_a_booster_computes_its_paper(kind: str, settings: dict[str, Any], forward: Callable[..., Array]) -> None:
    torch.manual_seed(1)
    net, seen = make_booster(Booster(kind=kind, hidden=(10, 8), **settings), SIZES).eval(), Seen()
    expected = forward(Weights(net), seen)
    with torch.no_grad():
        found = net(seen.torch).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
    assert expected.std() > 1e-3, "a net that ignores its input proves nothing"


def test_every_booster_is_computed_again() -> None:
    assert {kind for kind, _, _ in _CASES} == set(BOOSTERS)


@pytest.mark.parametrize("kind", BOOSTERS)
@pytest.mark.parametrize("after", [{}, {"activation": "dice", "norm": "batch", "dropout": 0.2}, {"norm": "layer"}])
def test_every_parameter_of_a_booster_learns(kind: str, after: dict[str, Any]) -> None:
    net, seen = make_booster(Booster(kind=kind, hidden=(10, 8), cross_experts=2, **after), SIZES), Seen()
    Weights(net)  # off their starts: a weight behind a zero would get no gradient
    net(seen.torch).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias before a batch norm cancels out
    assert [name for name in idle if not (after.get("norm") == "batch" and name.endswith("bias"))] == []


@pytest.mark.parametrize(
    ("settings", "sizes", "message"),
    [
        ({"kind": "din"}, Sizes(3, 0, 2, 4), "the app has none; add a feature of kind sequence or recent"),
        ({"kind": "finalmlp", "hidden": (9,)}, SIZES, "do not divide the last layer's 9 columns"),
    ],
)
def test_a_booster_without_what_it_needs_says_so(settings: dict[str, Any], sizes: Sizes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        make_booster(Booster(**settings), sizes)


def test_dice_is_its_formula_and_becomes_a_prelu_without_spread() -> None:
    dice, x = activation("dice", 4), torch.randn(64, 4) * 3 + 1
    dice.alpha.data = torch.tensor([0.0, 0.1, 0.5, 1.0])  # type: ignore[union-attr]
    raw = x.double().numpy()
    p = sigmoid((raw - raw.mean(0)) / np.sqrt(raw.var(0) + 1e-8))
    expected = raw * (p + dice.alpha.detach().double().numpy() * (1 - p))  # type: ignore[union-attr]
    np.testing.assert_allclose(dice(x).detach().double().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", relu),
        ("silu", lambda x: x * sigmoid(x)),
        ("prelu", lambda x: np.where(x > 0, x, 0.25 * x)),
        ("gelu", lambda x: x * np.vectorize(lambda v: 0.5 * (1 + torch.erf(torch.tensor(v / 2**0.5)).item()))(x)),
    ],
)
def test_activations_by_name(name: str, formula: Callable[[Array], Array]) -> None:
    x = torch.linspace(-3, 3, 12).view(4, 3)
    found = activation(name, 3)(x).detach().double().numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(found, formula(x.double().numpy()), rtol=1e-5, atol=1e-6)


def test_a_norm_stands_before_the_activation_and_dropout_after_it() -> None:
    deep = DeepLayers(4, (8,), Hidden("relu", "layer", 0.5))
    assert [type(part).__name__ for part in deep.after[0]] == ["LayerNorm", "ReLU", "Dropout"]
