"""The light net is the formula of `contracts.weights`."""

import numpy as np
import pytest
import torch

from model.light import LightNet


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("dense", [0, 2])
def test_the_light_net_computes_the_published_formula(dense: int, *, wide: bool) -> None:
    torch.manual_seed(0)
    net = LightNet(3, dense, width=4, hidden=(8, 5), wide=wide, prior_logit=-2.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    embedding, first_order, numbers = torch.randn(6, 12), torch.randn(6, 3), torch.randn(6, dense)
    got = net(embedding, first_order if wide else None, numbers).detach().numpy()
    weights = {name: tensor.detach().numpy().astype(np.float64) for name, tensor in net.named_parameters()}
    x = np.concatenate([embedding.numpy(), numbers.numpy()], axis=1)
    for layer in range(3):
        x = x @ weights[f"mlp.{layer}.weight"].T + weights[f"mlp.{layer}.bias"]
        x = np.maximum(x, 0) if layer < 2 else x
    expected = weights["bias"] + x[:, 0]
    if wide:
        expected += first_order.numpy().sum(1) + numbers.numpy() @ weights["wide_dense"]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_new_light_net_predicts_about_the_prior() -> None:
    torch.manual_seed(0)
    net = LightNet(3, 0, width=4, hidden=(8,), wide=True, prior_logit=-3.0)
    logit = net(torch.randn(200, 12) * 0.01, torch.zeros(200, 3), torch.zeros(200, 0))
    assert (logit + 3.0).abs().max().item() < 0.01


def test_a_light_net_of_numbers_alone_works() -> None:
    net = LightNet(0, 2, width=4, hidden=(8,), wide=True, prior_logit=0.0)
    assert net(torch.zeros(3, 0), None, torch.randn(3, 2)).shape == (3,)
