"""The averaged light tower: what is published, and part of what steers it."""

import numpy as np
import pytest
import torch
from torch import nn

from contracts.app import load_app
from model.averaging import DecayingAverage
from model.export import light_arrays
from model.published import PublishedLight
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.fake_traffic import examples


def _oracle(values: list[float], rows: list[int], halflife: int) -> float:
    """The weighted mean written out: row for row, the newest counts 1 and decays, or all alike while warming up."""
    average, seen = 0.0, 0
    for value, count in zip(values, rows, strict=True):
        seen += count
        keep = min(0.5 ** (count / halflife) if halflife else 0.0, 1 - count / seen)
        average = keep * average + (1 - keep) * value
    return average


@pytest.mark.parametrize("halflife", [0, 10, 100, 10_000])
def test_it_is_the_decaying_mean_of_the_parameters(halflife: int) -> None:
    net = nn.Linear(1, 1, bias=False)
    average = DecayingAverage(net, halflife)
    rng = np.random.default_rng(0)
    values, rows = rng.normal(size=20).tolist(), rng.integers(1, 50, 20).tolist()
    for value, count in zip(values, rows, strict=True):
        net.weight.data.fill_(value)
        average.update(count)
    assert average.state()["weight"].item() == pytest.approx(_oracle(values, rows, halflife), abs=1e-5)


def test_the_published_tower_is_the_average_and_without_one_the_newest() -> None:
    for rows in (0, 4096):
        app = load_app("adsim", {"train": {"average_rows": rows, "precision": "fp32"}})
        trainer, frame = Trainer(app), examples(app, 1024, seed=5)
        for start in range(0, 1024, 128):
            trainer.learn(frame[start : start + 128])
        newest = trainer.nets.light.bias.detach().numpy()
        assert (light_arrays(trainer)["bias"] == newest).all() == (rows == 0)


def test_the_average_goes_on_where_it_stood() -> None:
    app = load_app("adsim", {"train": {"precision": "fp32"}})
    straight, frame = Trainer(app), examples(app, 1024, seed=6)
    for start in range(0, 512, 128):
        straight.learn(frame[start : start + 128])
    resumed = Trainer(app)
    resumed.restore(straight.state(), straight.meta())
    for start in range(512, 1024, 128):
        straight.learn(frame[start : start + 128])
        resumed.learn(frame[start : start + 128])
    one, other = light_arrays(straight), light_arrays(resumed)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert torch.equal(straight.averages["light"].state()["bias"], resumed.averages["light"].state()["bias"])


def test_judging_with_the_averages_leaves_the_nets_as_they_were() -> None:
    app = load_app("adsim", {"train": {"precision": "fp32"}})
    trainer, frame = Trainer(app), examples(app, 512, seed=7)
    for start in range(0, 512, 128):
        trainer.learn(frame[start : start + 128])
    before, newest = trainer.state(), trainer.predict(frame)
    averaged = trainer.predict(frame, averaged=True)
    assert not np.array_equal(newest.light, averaged.light)
    assert not np.array_equal(newest.booster, averaged.booster)
    assert np.array_equal(trainer.predict(frame).light, newest.light)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.state().items())
    published = PublishedLight(light_arrays(trainer), app).logits(to_batch(frame, app))
    np.testing.assert_allclose(averaged.light_logit, published, atol=1e-5)
