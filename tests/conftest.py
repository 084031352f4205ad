"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.app import App, load_app

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def adsim() -> App:
    return load_app("adsim")


@pytest.fixture(scope="session")
def kuairand() -> App:
    return load_app("kuairand")


@pytest.fixture(scope="session")
def kuairand_dir() -> Path:
    """The real log; optional for users, a must with CI=true."""
    folder = ROOT.parent / "shared" / "data" / "kuairand"
    if not (folder / "log_0425_0430.parquet").is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the KuaiRand log at {folder}")
        pytest.skip("no KuaiRand log here; give it with ../shared/data/kuairand")
    return folder


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ROCKET_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for the whole session; each test takes a model name of its own."""
    from nodes.embedded_valkey import EmbeddedValkey

    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey.url
