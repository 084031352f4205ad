"""Law 5: the scorer and torch agree on the published, dequantised weights; what fp16 costs is measured apart."""

import numpy as np
import pytest
import torch

from contracts.app import load_app
from contracts.weights import Weights
from model.export import light_arrays
from model.published import PublishedLight
from model.tensors import to_batch
from model.trainer import Trainer
from nodes.fake_traffic import examples
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher
from nodes.score import LightScorer

ROWS = 10_000


def trained(name: str, **overrides: object) -> Trainer:
    app = load_app(name, {"train": {"precision": "fp32", "device": "cpu", "average_rows": 0}, **overrides})
    trainer = Trainer(app)
    rows = examples(app, 4096, seed=3, label_rate=0.3)
    for start in range(0, rows.height, 512):
        trainer.learn(rows[start : start + 512])
    return trainer


def version(trainer: Trainer) -> Weights:
    store = MemoryWeights(trainer.app.name)
    publisher = Publisher(trainer.app, store, force=True)
    publisher.offer(light_arrays(trainer), position=1, step=trainer.step, trained_until_ms=1)
    publisher.finish()
    return store.fetch()


def published(trainer: Trainer) -> LightScorer:
    return LightScorer(trainer.app, version(trainer))


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_numpy_and_torch_agree_on_the_published_weights(name: str) -> None:
    trainer = trained(name, publish={"dtype": "fp16"})
    scorer = published(trainer)
    served = Trainer(trainer.app)  # torch with the dequantised weights in place of the trained ones
    state = trainer.state()
    half = {
        key: t.half().float() if key.startswith("model.") and t.is_floating_point() else t for key, t in state.items()
    }
    served.restore(half, trainer.meta())
    rows = examples(trainer.app, ROWS, seed=11)
    light = scorer.logits(rows)
    assert np.abs(light - served.predict(rows).light_logit).max() <= 1e-5
    assert light.std() > 0.05, "the rows differ, so the comparison says something"
    exact = trainer.predict(rows).light_logit
    assert (np.abs(light - exact) <= 2e-3 * np.maximum(1, np.abs(exact))).all(), "what fp16 costs"


@pytest.mark.parametrize("name", ["adsim", "kuairand"])
def test_fp32_versions_lose_nothing(name: str) -> None:
    trainer = trained(name, publish={"dtype": "fp32"})
    rows = examples(trainer.app, 2000, seed=12)
    with torch.inference_mode():
        assert np.abs(published(trainer).logits(rows) - trainer.predict(rows).light_logit).max() <= 1e-5


SHAPES = [
    {"sharing": "separate"},
    {"light": {"wide": False}},
    {"light": {"hidden": []}},
    {"light": {"deep": False, "fm": True}},
    {"light": {"fm": True, "norm": "layer", "activation": "gelu"}},
    {"sharing": "shared", "share": "trunk", "light": {"activation": "prelu"}},
]


@pytest.mark.parametrize("model", SHAPES, ids=str)
def test_every_shape_of_the_light_net_is_served_as_trained(model: dict[str, object]) -> None:
    trainer = trained("adsim", publish={"dtype": "fp32"}, model=model)
    rows = examples(trainer.app, 2000, seed=13)
    assert np.abs(published(trainer).logits(rows) - trainer.predict(rows).light_logit).max() <= 1e-5


@pytest.mark.parametrize(
    "model", [{}, *SHAPES[1:4], {"light": {"fm": True, "norm": "layer", "activation": "silu"}}], ids=str
)
def test_the_published_average_in_torch_is_what_the_scorer_answers(model: dict[str, object]) -> None:
    trainer = trained("adsim", model=model, train={"precision": "fp32", "average_rows": 1024})
    weights = version(trainer)
    rows = examples(trainer.app, 2000, seed=14)
    in_torch = PublishedLight(weights.arrays, trainer.app).logits(to_batch(rows, trainer.app))
    assert np.abs(LightScorer(trainer.app, weights).logits(rows) - in_torch).max() <= 1e-5
