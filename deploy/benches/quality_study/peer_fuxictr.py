"""FuxiCTR on the same rows, by a Python of its own: its dependencies do not go together with ours."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from contracts.app import App
from contracts.errors import RocketError
from deploy.benches.quality_study.learn import Learnt
from deploy.benches.quality_study.rows import Rows

_WORKER = Path(__file__).with_name("fuxictr_worker.py")
_LIMIT_S = 1800


def has_fuxictr(python: Path) -> str | None:
    """The version of FuxiCTR that a Python has; None where it has none."""
    code = "from importlib.metadata import version; import fuxictr; print(version('fuxictr'))"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def learn_fuxictr(app: App, rows: Rows, seed: int, kind: str, python: Path, settings: dict[str, Any]) -> Learnt:
    """Train FuxiCTR's `dcn_v2` or `deepfm` on the features of `app`, sequences pooled by their mean.

    Args:
        app: its feature table says which fields.
        rows: the same that the nets learn.
        seed: of FuxiCTR's first weights.
        kind: which net.
        python: an interpreter that has fuxictr and torch.
        settings: `lr`, `embedding_l2`, `dropout`, `hidden`, `batch_rows`.

    Raises:
        RocketError: that Python fails; its last words are told.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _export(app, rows, folder / "rows.npz")
        layout = app.layout
        job = {
            "kind": kind,
            "seed": seed,
            "cut": rows.cut,
            "tuning": rows.tuning,
            "width": app.config.model.embedding_dim,
            "ids": {feature.name: feature.rows for feature in layout.ids},
            "dense": [feature.name for feature in layout.dense],
            "sequences": {feature.name: (feature.of, feature.length) for feature in layout.sequences},
            **settings,
        }
        (folder / "job.json").write_text(json.dumps(job))
        done = subprocess.run(  # noqa: S603  # the interpreter that the user named
            [str(python), "-I", str(_WORKER), str(folder)],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise RocketError(f"{python}: FuxiCTR's {kind} failed ({last}); give a Python with fuxictr and torch")
        with np.load(folder / "said.npz") as said:
            whole = rows.cut // settings["batch_rows"] * settings["batch_rows"]
            missing = int(said["first_tuning"]) - rows.tuning  # rows of a minibatch that began before
            tuning = np.concatenate([np.full(missing, 0.5), said["tuning"]])[: whole - rows.tuning]
            return Learnt(
                {"light": said["frozen"]}, {"light": said["going_on"]}, {"light": tuning}, float(said["cpu_s"])
            )


def _export(app: App, rows: Rows, path: Path) -> None:
    arrays = {"label": rows.frame["label"].to_numpy()}
    for feature in app.layout.ids:
        arrays[feature.name] = rows.frame[feature.name].to_numpy().astype(np.int64)
    for feature in app.layout.dense:
        arrays[feature.name] = rows.frame[feature.name].to_numpy()
    for feature in app.layout.sequences:
        lists = rows.frame[feature.name]
        padded = np.zeros((rows.frame.height, feature.length), np.int64)
        lengths = lists.list.len().to_numpy().astype(np.int64)
        at = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        padded[np.repeat(np.arange(lengths.size), lengths), at] = lists.explode().drop_nulls().to_numpy()
        arrays[feature.name] = padded
    np.savez(path, **arrays)  # type: ignore[arg-type]  # names of arrays, not of switches
