"""Servers that outlive their starter: never a stranger's process, never a taken port, always why it failed."""

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contracts.errors import StoreError
from deploy.local.daemon import _started, free_port, port_taken
from deploy.local.valkey_server import ValkeyServer


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of somebody else's that runs in the very folder."""
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as process:
        yield process
        process.kill()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("wrong", ["started", "folder", "gone"])
def test_a_process_that_only_has_the_number_is_left_alone(
    tmp_path: Path, stranger: "subprocess.Popen[bytes]", wrong: str
) -> None:
    folder = tmp_path / "other" if wrong == "folder" else tmp_path
    folder.mkdir(exist_ok=True)
    started = _started(psutil.Process(stranger.pid)) - (1 if wrong == "started" else 0)
    if wrong == "gone":
        stranger.kill()  # and not reaped: a zombie holds the number
    (folder / "server.json").write_text(json.dumps({"pid": stranger.pid, "started": started, "port": 1}))
    server = ValkeyServer(folder)
    if wrong == "gone":
        time.sleep(0.05)
    assert server.process() is None
    assert not server.stop()
    assert not server.kill()
    if wrong != "gone":
        assert stranger.poll() is None


def test_the_record_alone_decides_so_the_test_above_can_fail(
    tmp_path: Path, stranger: "subprocess.Popen[bytes]"
) -> None:
    facts = {"pid": stranger.pid, "started": _started(psutil.Process(stranger.pid)), "port": 1}
    (tmp_path / "server.json").write_text(json.dumps(facts))
    assert ValkeyServer(tmp_path).stop()
    assert not psutil.pid_exists(stranger.pid)


def test_a_server_is_found_again_and_keeps_port_password_and_data(valkey: ValkeyServer) -> None:
    found = ValkeyServer(valkey.folder)
    assert not found.start()
    assert (found.pid, found.url) == (valkey.pid, valkey.url)
    assert stat.S_IMODE((valkey.folder / "server.json").stat().st_mode) == 0o600
    with valkey._client() as client:
        client.set("k", "v")
    before = valkey.url, valkey.pid
    valkey.kill()
    assert valkey.pid is None
    assert found.start()
    assert found.url == before[0]
    assert found.pid != before[1]
    with found._client() as client:
        assert client.get("k") == b"v"
    found.restart()
    assert found.answers()
    assert found.stop()


def test_a_server_that_hangs_is_told_from_one_that_is_down_and_is_ended(valkey: ValkeyServer) -> None:
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert valkey.pid == pid
    assert not valkey.answers()
    with pytest.raises(StoreError, match="runs but does not answer within 0 s; stop it"):
        valkey.wait_ready(0)
    assert valkey.stop(grace_s=0.1)  # SIGTERM cannot reach it, SIGKILL does
    assert not psutil.pid_exists(pid)


def test_a_taken_port_is_named_and_nobody_is_disturbed(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert port_taken(port)
        with pytest.raises(StoreError, match=f"port {port} on 127.0.0.1 is taken by another process"):
            ValkeyServer(tmp_path, port=port).start()
    assert not port_taken(free_port())


def test_a_server_that_cannot_start_says_what_its_log_says(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("not a folder")
    server = ValkeyServer(tmp_path)
    with pytest.raises(StoreError, match=r"Valkey did not start on port \d+: .*appendonlydir"):
        server.start()
    assert server.pid is None


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text("[]")
    with pytest.raises(StoreError, match=r"server\.json: is not a JSON object"):
        ValkeyServer(tmp_path).start()
    (tmp_path / "server.json").write_text("{")
    with pytest.raises(StoreError, match=r"server\.json: cannot be read"):
        ValkeyServer(tmp_path).stop()
