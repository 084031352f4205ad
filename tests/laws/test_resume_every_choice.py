"""Law 3 for every choice that an app can make of how to train: boosters, hints, optimizers, schedules, labels, norms.

The choices are read from the settings and registries themselves, so that a new one is tested from the day it is there.
"""

import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import BaseModel

from contracts.app import App, AppConfig, laid_over
from deploy.benches.hints_study.learn import save_teacher
from model.boosters import BOOSTERS
from model.hints import HINTS
from model.trainer import Trainer
from tests.model.test_trainer import OWN
from tests.random_examples import random_examples, small_app

BATCH, SAVED, STEPS = 32, 5, 9
#: Every choice is made on top of these: nothing that steers training is at rest.
BASE: dict[str, Any] = {
    "model": {"booster": {"pooling": "attention", "dropout": 0.2}},
    "rocket": {"schedule": "ramp", "ramp_rows": 200, "warmup_rows": 200, "gate_halflife_rows": 64},
    "train": {"dense": {"schedule": "cosine", "warmup_rows": 64, "decay_rows": 128, "clip_norm": 0.05}},
}
#: Sections whose choices steer training.
SECTIONS = ("model", "rocket", "train", "labels", "sampling")
#: What a choice needs beside it to be heard, or to be accepted.
WITH: dict[str, dict[str, Any]] = {
    "bilinear": {"model": {"booster": {"kind": "fibinet"}}},
    "mask_parallel": {"model": {"booster": {"kind": "masknet"}}},
    "deep": {"model": {"light": {"fm": True}}},
    "scheme=offline": {"rocket": {"teacher": "TEACHER"}},
    "scheme=rocket_kd": {"rocket": {"teacher": "TEACHER"}},
    "scheme=born_again": {"rocket": {"generation_rows": 2 * 32}},
}
#: Choices that are refused when the app is checked.
REFUSED = {"model.light.activation=dice", "model.light.norm=batch"}
#: Numbers that switch something on.
NUMBERS: dict[str, dict[str, Any]] = {
    "momentum": {"train": {"dense": {"optimizer": "sgd", "momentum": 0.9}}},
    "weight decay": {"train": {"dense": {"optimizer": "adamw", "weight_decay": 0.1}}},
    "no clipping": {"train": {"dense": {"clip_norm": None}}},
    "no average": {"train": {"average_rows": 0}},
    "no l1": {"train": {"wide_optimizer": "ftrl", "ftrl": {"l1": 0.0}}},
    "a strong l1": {"train": {"wide_optimizer": "ftrl", "ftrl": {"l1": 20.0}}},
    "all optimizers at once": {
        "train": {"embedding_optimizer": "sparse_adam", "wide_optimizer": "ftrl", "dense": {"optimizer": "adamw"}}
    },
    "experts": {"model": {"booster": {"kind": "dcn_v2", "cross_experts": 3}}},
    "generations, the first from elsewhere": {
        "rocket": {"scheme": "born_again", "teacher": "TEACHER", "generation_rows": 64}
    },
    "widened, normed": {
        "model": {"light": {"hidden": [8, 4], "norm": "layer", "activation": "prelu"}},
        "rocket": {"scheme": "net_aug", "widen": 16},
    },
    "branches over a layer": {"model": {"light": {"hidden": [8, 4]}}, "rocket": {"scheme": "one", "branches": 3}},
    "exits of two layers": {"model": {"light": {"hidden": [8, 4]}}, "rocket": {"scheme": "own_teacher"}},
    "hidden layers of a teacher that stands still": {
        "rocket": {"scheme": "offline", "teacher": "TEACHER", "feature_hint": "fitnet", "feature_layers": [[0, 0]]}
    },
    "gradients by the embeddings": {
        "model": {"sharing": "shared"}, "rocket": {"feature_hint": "gradient_attention", "gradient_block": False}
    },
    "a discriminator": {"rocket": {"feature_hint": "adversarial", "feature_layers": [[0, 0]]}},
    "flows between layers": {
        "model": {"light": {"hidden": [8, 4]}, "booster": {"hidden": [16, 8]}},
        "rocket": {"feature_hint": "fsp", "feature_layers": [[0, 0], [1, 1]]},
    },
    "no booster, all else": {
        "model": {"booster": {"kind": "none"}},
        "train": {"embedding_optimizer": "sparse_adam", "wide_optimizer": "ftrl"},
    },
}  # fmt: skip


def nested(path: tuple[str, ...], value: object) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if len(path) > 1 else value}


def options(annotation: Any) -> tuple[object, ...]:
    """The values of a choice; none where it is no choice."""
    if annotation is bool:
        return (False, True)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in {types.UnionType}:
        return tuple(value for part in get_args(annotation) for value in options(part))
    return ()


def choices(section: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value of every choice in a section and those within it."""
    for name, field in section.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from choices(annotation, (*path, name))
            continue
        for value in options(annotation):
            if value == "auto" or f"{'.'.join((*path, name))}={value}" in REFUSED:
                continue
            beside = WITH.get(name, {}) | WITH.get(f"{name}={value}", {})
            yield f"{'.'.join((*path, name))}={value}", laid_over(nested((*path, name), value), beside)


def enumerated() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in SECTIONS:
        annotation: Any = AppConfig.model_fields[name].annotation
        found |= dict(choices(annotation, (name,)))
    for kind in (*BOOSTERS, "none", OWN):
        for norm in ("none", "batch", "layer"):
            found[f"{kind} {norm}"] = {"model": {"booster": {"kind": kind, "norm": norm}}}
    return found | {f"hint {name}": {"rocket": {"hint": name}} for name in HINTS} | NUMBERS


CASES = enumerated()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("app") / "small"
    save_teacher(Trainer(small_app(made, BASE), seed=5), made.with_name("teacher"))
    return made


def minibatches(app: App) -> list[pl.DataFrame]:
    """Rows of every role that the label mode knows; the fourth minibatch is not finite."""
    frame, draw = random_examples(app, BATCH * STEPS), np.random.default_rng(1)
    if app.config.labels.mode != "wait":
        role = draw.integers(0, 3, frame.height).astype(np.uint8)
        label = np.where(role == 2, 1, np.where(role == 1, 0, frame["label"].to_numpy())).astype(np.uint8)
        elapsed_s = draw.uniform(0, app.config.labels.wait_s, frame.height).astype(np.float32)
        frame = frame.with_columns(role=role, label=label, elapsed_s=elapsed_s)
    cut = [frame.slice(start, BATCH) for start in range(0, frame.height, BATCH)]
    if app.config.train.not_finite == "skip":
        cut[3] = cut[3].with_columns(pl.lit(3e38, pl.Float32).alias(app.layout.light_dense[0].name))
    return cut


def with_teacher(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The case, with the folder of the teacher that it asks for."""
    asked = case.get("rocket", {}).get("teacher") == "TEACHER"
    return laid_over(case, {"rocket": {"teacher": str(folder.with_name("teacher"))}}) if asked else case


@pytest.mark.parametrize("case", CASES)
def test_a_restored_trainer_goes_on_bit_for_bit(folder: Path, case: str) -> None:
    app = small_app(folder, laid_over(BASE, with_teacher(CASES[case], folder)))
    cut, first = minibatches(app), Trainer(app)
    for rows in cut[:SAVED]:
        first.learn(rows)
    state, meta = first.state(), json.loads(json.dumps(first.meta()))
    assert meta["skipped"]["batches"] == (app.config.train.not_finite == "skip")
    for rows in cut[SAVED:]:  # what comes later does not reach the copies
        first.learn(rows)
    torch.rand(1)  # in another process the global generator stands elsewhere
    second = Trainer(app, seed=77)
    second.restore(state, meta)
    for rows in cut[SAVED:]:
        second.learn(rows)
    straight, resumed = first.state(), second.state()
    assert straight.keys() == resumed.keys()
    for name, tensor in straight.items():
        assert tensor.numpy().tobytes() == resumed[name].numpy().tobytes(), name
    assert first.meta() == second.meta()
    assert any(not torch.equal(straight[name], state[name]) for name in state if "table" in name)


def test_all_registries_and_choices_are_among_the_cases() -> None:
    told = " ".join(CASES)
    for name in (*BOOSTERS, *HINTS, "ftrl", "sparse_adam", "adamw", "inverse_sqrt", "es_dfm", "dice", "separate"):
        assert name in told
    assert len(CASES) > 60
