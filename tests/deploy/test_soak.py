"""A soak that ends early, for whatever reason: the reason is told, and nothing that it started goes on."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import StoreError
from deploy import soak
from deploy.local.stack import Stack
from flows.progress import Silent


def run(out: Path) -> dict[str, Any]:
    return soak.run(out, minutes=1, per_s=1, seed=1, progress=Silent(), sets=[])


def test_a_stack_that_cannot_start_is_told_and_not_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Stack) -> None:
        raise StoreError("no Java")

    monkeypatch.setattr(Stack, "up", refused)
    with pytest.raises(StoreError, match="no Java"):
        run(tmp_path)


def test_what_was_started_is_stopped_once_however_often_it_is_told_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def up(stack: Stack) -> None:
        stack.valkey.folder.mkdir(parents=True)
        (stack.valkey.folder / "server.json").write_text('{"port": 1}')
        os.kill(os.getpid(), signal.SIGTERM)

    def down(_: Stack) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ended.append("down")

    monkeypatch.setattr(Stack, "up", up)
    monkeypatch.setattr(Stack, "down", down)
    before = signal.signal(signal.SIGTERM, soak._end)
    try:
        with pytest.raises(SystemExit) as left:
            run(tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (left.value.code, ended) == (143, ["down"])
