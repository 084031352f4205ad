"""Names and shapes of the published arrays: an API between trainer and scorer."""

from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.app import load_app
from model.export import light_arrays
from model.tensors import to_batch
from model.trainer import Trainer
from tests.random_examples import random_examples, small_app


@pytest.mark.parametrize("sharing", ["shared", "separate"])
@pytest.mark.parametrize("wide", [True, False])
def test_names_and_shapes_are_pinned(sharing: str, *, wide: bool) -> None:
    model = {"embedding_dim": 4, "sharing": sharing, "light": {"wide": wide, "hidden": [8, 4]}}
    app = load_app("kuairand", {"model": model})
    assert app.layout.rows > app.layout.light_rows  # there are rows to leave behind
    arrays = light_arrays(Trainer(app))
    rows, inputs = app.layout.light_rows, len(app.layout.light_ids) * 4 + len(app.layout.light_dense)
    expected = {
        "embedding": (rows, 4),
        "bias": (1,),
        "mlp.0.weight": (8, inputs),
        "mlp.0.bias": (8,),
        "mlp.1.weight": (4, 8),
        "mlp.1.bias": (4,),
        "mlp.2.weight": (1, 4),
        "mlp.2.bias": (1,),
    }
    if wide:
        expected |= {"wide": (rows,), "wide_dense": (len(app.layout.light_dense),)}
    assert {name: array.shape for name, array in arrays.items()} == expected
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays.values())


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_the_arrays_alone_give_the_trainers_predictions(tmp_path: Path, sharing: str) -> None:
    app = small_app(tmp_path / "app", {"model": {"sharing": sharing}, "train": {"average_rows": 0}})
    trainer, frame = Trainer(app), random_examples(app, 512)
    for start in range(0, 512, 64):
        trainer.learn(frame[start : start + 64])
    arrays, batch, light = light_arrays(trainer), to_batch(frame, app), app.layout
    ids = batch.ids_BF.numpy()[:, : len(light.light_ids)]
    dense = batch.dense_BN.numpy()[:, : len(light.light_dense)]
    x = np.concatenate([arrays["embedding"][ids].reshape(len(ids), -1), dense], axis=1)
    x = np.maximum(x @ arrays["mlp.0.weight"].T + arrays["mlp.0.bias"], 0)
    logit = (x @ arrays["mlp.1.weight"].T + arrays["mlp.1.bias"])[:, 0] + arrays["bias"]
    logit += arrays["wide"][ids].sum(1) + dense @ arrays["wide_dense"]
    np.testing.assert_allclose(trainer.predict(frame).light_logit, logit, atol=1e-5)


def test_later_learning_does_not_change_what_was_exported(tmp_path: Path) -> None:
    app = small_app(tmp_path / "app")
    trainer, frame = Trainer(app), random_examples(app, 128)
    arrays = light_arrays(trainer)
    before = {name: array.copy() for name, array in arrays.items()}
    trainer.learn(frame)
    assert all(np.array_equal(arrays[name], before[name]) for name in before)
    assert not torch.equal(torch.from_numpy(light_arrays(trainer)["embedding"]), torch.from_numpy(before["embedding"]))
