"""Boosters by name, their blocks, and a user's own."""

import pytest
import torch
from torch import Tensor, nn

from contracts import model_checks
from contracts.app import load_app
from contracts.errors import ContractError
from contracts.nets import Booster
from model.boosters import BOOSTERS, BoosterInput, Sizes, make_booster
from model.boosters.dcn_v2 import LowRankCross
from model.layers import AttentionPooling, MeanPooling, Padded, RunningStandardise
from model.tensors import Ragged

SIZES = Sizes(ids=3, sequences=1, dense=2, width=4, queries=(1,))


class Own(nn.Module):
    """A user's own booster."""

    def __init__(self, sizes: Sizes, settings: Booster) -> None:
        super().__init__()
        self.last = nn.Linear(sizes.flat, 1)

    def forward(self, seen: BoosterInput) -> Tensor:
        return self.last(seen.flat()).squeeze(1)


class WrongForm(nn.Module):
    """Takes other arguments than the form says."""

    def __init__(self) -> None:
        super().__init__()


def seen(rows: int) -> BoosterInput:
    torch.manual_seed(0)
    history = torch.randn(rows, 5, 4), torch.arange(5) < torch.arange(rows).unsqueeze(1)
    return BoosterInput(torch.randn(rows, 3, 4), torch.randn(rows, 1, 4), torch.randn(rows, 2), (history,))


@pytest.mark.parametrize("kind", [*BOOSTERS, f"{__name__}:Own"])
@pytest.mark.parametrize("layers", [0, 2])
def test_a_booster_gives_one_logit_a_row_whatever_the_other_rows(kind: str, layers: int) -> None:
    net = make_booster(Booster(kind=kind, hidden=(8,), cross_layers=layers), SIZES).eval()
    whole = seen(6)
    logits = net(whole)
    assert logits.shape == (6,)
    history = tuple((values[:2], mask[:2]) for values, mask in whole.sequences)
    two = BoosterInput(whole.fields_BFD[:2], whole.pooled_BQD[:2], whole.dense_BN[:2], history)
    assert torch.allclose(net(two), logits[:2], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dcn_v3", "did you mean 'dcn_v2'"),
        ("no_such_module:Net", "cannot be loaded"),
        ("model.layers:Nothing", "cannot be loaded"),
        (f"{__name__}:WrongForm", "fails"),
        ("builtins:max", "fails|no torch"),
    ],
)
def test_a_booster_that_cannot_be_made_is_named_with_the_mend(kind: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        make_booster(Booster(kind=kind), SIZES)


def test_the_check_of_an_app_knows_every_booster_and_what_it_needs() -> None:
    assert set(model_checks.BOOSTERS) == set(BOOSTERS)
    app = load_app("adsim")
    plain = tuple(feature for feature in app.features if feature.output != "ids")
    attentive = app.config.model.model_copy(update={"booster": Booster(kind="din")})
    model_checks.check_model(app.folder / "app.toml", attentive, app.features)
    with pytest.raises(ContractError, match="the app has none; add a feature of kind sequence or recent"):
        model_checks.check_model(app.folder / "app.toml", attentive, plain)


def test_a_low_rank_cross_is_the_papers_formula() -> None:
    cross = LowRankCross(3, 2)
    x0, x = torch.randn(5, 3), torch.randn(5, 3)
    matrix = cross.up.weight @ cross.down.weight
    assert torch.allclose(cross(x0, x), x0 * (x @ matrix.T + cross.up.bias) + x, atol=1e-6)


def ragged() -> tuple[Ragged, Tensor]:
    starts = torch.tensor([0, 2, 2, 5])
    return Ragged(torch.arange(5), starts), torch.arange(10.0).view(5, 2)


@pytest.mark.parametrize("pooling", [MeanPooling(2), AttentionPooling(2)])
def test_pooling_knows_only_the_rows_own_positions(pooling: nn.Module) -> None:
    sequence, values = ragged()
    padded = Padded(sequence)
    query = torch.randn(3, 2)
    pooled = pooling(padded.fill(values), padded.mask_BL, query)
    assert torch.equal(pooled[1], torch.zeros(2))
    for row, (start, stop) in enumerate([(0, 2), (2, 2), (2, 5)]):
        alone = Padded(Ragged(torch.arange(stop - start), torch.tensor([0, stop - start])))
        expected = pooling(alone.fill(values[start:stop]), alone.mask_BL, query[row : row + 1])
        assert torch.allclose(pooled[row : row + 1], expected, atol=1e-6)


def test_mean_pooling_is_the_mean() -> None:
    sequence, values = ragged()
    padded = Padded(sequence)
    pooled = MeanPooling(2)(padded.fill(values), padded.mask_BL, torch.zeros(3, 2))
    assert torch.allclose(pooled[2], values[2:].mean(0), atol=1e-6)


def test_attention_follows_the_item_shown() -> None:
    torch.manual_seed(1)
    sequence, values = ragged()
    padded = Padded(sequence)
    pooling = AttentionPooling(2)
    near, far = (pooling(padded.fill(values), padded.mask_BL, torch.full((3, 2), x)) for x in (0.0, 50.0))
    assert not torch.allclose(near[2], far[2])


def test_standardising_approaches_mean_0_and_deviation_1_however_rows_are_cut() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(4000, 2) * torch.tensor([5.0, 0.1]) + torch.tensor([100.0, -3.0])
    whole, cut = RunningStandardise(2), RunningStandardise(2)
    whole.observe(numbers)
    for part in numbers.split(33):
        cut.observe(part)
    assert torch.allclose(whole.mean_N, cut.mean_N, atol=1e-6)
    assert torch.allclose(whole.squares_N, cut.squares_N, atol=1e-6)
    for _ in range(30):
        whole.observe(numbers)
    out = whole(numbers)
    assert out.mean(0).abs().max().item() < 0.2
    assert (out.std(0) - 1).abs().max().item() < 0.2


def test_standardising_bounds_an_outlier() -> None:
    assert RunningStandardise(1)(torch.tensor([[1e30], [-1e30]])).tolist() == [[5.0], [-5.0]]
