"""What a trainer publishes as deltas is, version by version, what it would have published whole."""

from pathlib import Path
from typing import Any

import pytest

from contracts.app import App
from flows import train
from nodes.fakes import MemoryWeights
from tests.nodes.tiny_nets import bits
from tests.random_examples import START_MS, random_examples, small_app, write_log

LAX = {
    "window_rows": 64, "max_logloss_increase": 99.0, "calibration": [0.0, 1e9], "max_live_ne": 99.0,
    "max_label_shift": 99.0, "max_prior_shift": 99.0, "max_norm_growth": 1e9, "max_missing_rise": 1.0,
    "frozen_share": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return small_app(tmp_path_factory.mktemp("app") / "small")


@pytest.fixture(scope="module")
def log(app: App, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "examples", app, random_examples(app, 1500))


def trained(app: App, log: Path, folder: Path, parts: int, **publish: Any) -> dict[int, tuple[str, dict[str, bytes]]]:
    """Position -> kind and bytes of the version published there; the run is stopped and resumed between its parts."""
    settings = {"every_rows": 192, "gate": LAX, "max_delta_share": 1.0, "full_every": 4} | publish
    app, store = small_app(app.folder, {"publish": settings}), MemoryWeights(app.name)
    for part in range(1, parts + 1):
        until_ms = START_MS + 1500 * 1000 * part // parts
        train.run(app, log, folder, store=store, until_ms=until_ms)
    return {
        manifest.position: (manifest.kind, bits(store.fetch(manifest.version).arrays)) for manifest in store.versions()
    }


@pytest.mark.parametrize("parts", [1, 3])
def test_deltas_and_full_versions_of_a_run_are_the_same_weights(
    app: App, log: Path, tmp_path: Path, parts: int
) -> None:
    whole = trained(app, log, tmp_path / "whole", parts, deltas=False)
    found = trained(app, log, tmp_path / "deltas", parts)
    assert {kind for kind, _ in whole.values()} == {"full"}
    assert sum(kind == "delta" for kind, _ in found.values()) > len(found) / 2 > 2
    assert {position: served for position, (_, served) in found.items()} == {
        position: served for position, (_, served) in whole.items()
    }


def test_a_trainers_candidates_need_no_look_at_every_row(
    app: App, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nodes import pack_deltas

    looked: list[bool] = []
    real = pack_deltas.rows_that_differ

    def watched(arrays, base, dtype, among):
        looked.append(among is None)
        return real(arrays, base, dtype, among)

    monkeypatch.setattr(pack_deltas, "rows_that_differ", watched)
    trained(app, log, tmp_path, 1)
    assert len(looked) > 2
    assert not any(looked)
