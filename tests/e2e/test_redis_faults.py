"""Real processes, killed: the pointer never names a version that is not whole, and data outlives its server."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from contracts import names
from contracts.app import App, load_app
from contracts.errors import RocketError, StoreError
from deploy.cli import app as cli
from nodes.embedded_valkey import EmbeddedValkey
from nodes.fake_traffic import light_arrays, requests
from nodes.fakes import MemoryWeights
from nodes.publish import Publisher, Snapshot, pack
from nodes.redis_weights import RedisWeights
from nodes.refresh import Refresher
from nodes.weight_stores import open_weights

pytestmark = pytest.mark.e2e
OVERRIDES = {"publish": {"chunk_bytes": 1024, "full_every": 3}, "model": {"embedding_dim": 1, "light": {"hidden": [2]}}}

#: Publishes as fast as it can, and says each version that it was told is safe.
PUBLISHER = textwrap.dedent(
    f"""
    import sys
    import numpy as np
    from contracts.app import load_app
    from nodes.fake_traffic import light_arrays
    from contracts.weights import Weights
    from nodes.pack_deltas import Packer
    from nodes.redis_weights import RedisWeights

    app = load_app("adsim", {OVERRIDES!r})
    store = RedisWeights(sys.argv[1], "m", keep=3)
    epoch = store.take_epoch()
    print("ready", flush=True)
    packer, live, arrays = Packer(app), None, light_arrays(app)
    for number in range(1, 100_000):
        arrays["bias"][0] = number % 1000
        arrays["embedding"][number % 100 :: 100] = number % 1000
        made = packer.pack(arrays, live, position=epoch * 1_000_000 + number, step=number, trained_until_ms=0)
        told = store.publish(made.manifest(app, "m", epoch, 0, {{}}), made.chunks)
        packer.published(made, told)
        live = Weights(told, made.arrays)
        print(told.version, flush=True)
    """
)


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", OVERRIDES)


def start_publisher(url: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", PUBLISHER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> list[int]:
    """Kill it; the versions it said it had published."""
    child.send_signal(signal.SIGKILL)
    said, _ = child.communicate()
    return [int(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]


def publish(app: App, store: RedisWeights, number: int) -> int:
    made = pack(app, light_arrays(app, number), position=number, step=number, trained_until_ms=0)
    assert isinstance(made, Snapshot)
    return store.publish(made.manifest(app, "m", store.epoch(), 0, {}), made.chunks).version


def test_a_publisher_killed_at_any_moment_leaves_a_whole_current_version(tmp_path: Path, app: App) -> None:
    rng = np.random.default_rng(1)
    with EmbeddedValkey(tmp_path) as valkey, open_weights(valkey.url, "m") as reader:
        last = 0
        for _ in range(3):
            child = start_publisher(valkey.url)
            while (reader.current_version() or 0) <= last:
                time.sleep(0.001)
            until = time.monotonic() + rng.random() * 0.1
            while time.monotonic() < until:
                seen = reader.fetch().manifest.version  # raises on a torn one
                assert seen >= last
                last = seen
            said = end(child)
            current = reader.current_version()
            assert current in ({said[-1], said[-1] + 1} if said else {last, last + 1}), "its last word may be lost"
            assert reader.fetch().manifest.version == current
            last = current or 0
        assert {manifest.kind for manifest in reader.versions()} == {"full", "delta"}
        with redis.Redis.from_url(valkey.url) as raw:
            whole = {manifest.version for manifest in reader.versions()}
            for key in raw.scan_iter("ctr:m:v:*"):
                version = int(key.split(b":")[3])
                assert version in whole or raw.ttl(key) > 0, "what a killed publisher left behind expires"


def test_a_server_killed_mid_publish_comes_back_with_every_version_it_acknowledged(tmp_path: Path, app: App) -> None:
    for round_ in range(2):
        with EmbeddedValkey(tmp_path) as valkey, open_weights(valkey.url, "m") as reader:
            before = reader.current_version() or 0
            child = start_publisher(valkey.url)
            while (reader.current_version() or 0) < before + 3 + round_:
                time.sleep(0.002)
            os.kill(valkey.pid, signal.SIGKILL)
            said = end(child)
            with pytest.raises(StoreError, match=r"redis://:\*\*\*@127.0.0.1:\d+/0: cannot be reached"):
                reader.current_version()
        with open_weights(tmp_path, "m") as store:
            assert store.current_version() in {said[-1], said[-1] + 1}
            assert store.fetch().manifest.version == store.current_version()


def test_a_scorer_keeps_its_version_while_the_server_is_dead(tmp_path: Path, app: App) -> None:
    with EmbeddedValkey(tmp_path) as valkey, open_weights(valkey.url, "m") as store:
        store.take_epoch()
        publish(app, store, 1)
        refresher = Refresher(app, store)
        assert refresher.look()
        os.kill(valkey.pid, signal.SIGKILL)
        assert not refresher.look()
        (answer,) = refresher.scorer.answer(requests(app, 1, 2), now_ms=0)
        assert (answer.model_version, refresher.refused) == (1, {"StoreError": 1})


def test_a_folder_keeps_its_versions_between_commands(tmp_path: Path, app: App) -> None:
    with open_weights(tmp_path / "w", "m") as store:
        assert publish(app, store, 1) == 1
    with open_weights(tmp_path / "w", "m") as store:
        assert (store.current_version(), publish(app, store, 2)) == (1, 2)
        assert [manifest.version for manifest in store.versions()] == [1, 2]
    assert not (tmp_path / "w" / "valkey.json").exists()


def test_a_second_process_joins_the_running_server_and_does_not_stop_it(tmp_path: Path, app: App) -> None:
    joins = (
        "import sys; from nodes.weight_stores import open_weights\n"
        "with open_weights(sys.argv[1], 'm') as store: print(store.current_version())"
    )
    with EmbeddedValkey(tmp_path) as valkey, open_weights(valkey.url, "m") as store:
        publish(app, store, 1)
        done = subprocess.run(
            [sys.executable, "-c", joins, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == "1\n"
        guest = EmbeddedValkey(tmp_path)
        guest.start()
        assert (guest.pid, guest.owned) == (valkey.pid, False)
        guest.stop()
        assert store.current_version() == 1
        address = tmp_path / "valkey.json"
        assert address.stat().st_mode & 0o777 == 0o600, "the password is for this user's eyes"


def test_a_server_left_running_by_a_killed_owner_is_adopted_and_stopped(tmp_path: Path) -> None:
    opens = (
        "import sys, time; from pathlib import Path; from nodes.embedded_valkey import EmbeddedValkey\n"
        "valkey = EmbeddedValkey(Path(sys.argv[1])); valkey.start(); print(valkey.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", opens, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    with EmbeddedValkey(tmp_path) as valkey:
        assert (valkey.pid, valkey.owned) == (pid, True)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stale_address_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "valkey.json").write_text(json.dumps({"pid": 1, "port": 1, "password": "x"}))
    with EmbeddedValkey(tmp_path) as valkey, redis.Redis.from_url(valkey.url) as raw:
        assert raw.ping()


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="give a writable folder"), open_weights(tmp_path / "file", "m"):
        pass
    with pytest.raises(StoreError, match="no such folder"), open_weights(tmp_path / "none", "m", create=False):
        pass
    with open_weights(tmp_path, "m"):
        pass
    (next((tmp_path / "appendonlydir").glob("*.manifest"))).write_text("nonsense")
    with (
        pytest.raises(StoreError, match=r"its Valkey did not start: .*manifest") as caught,
        open_weights(tmp_path, "m"),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_random_damage_to_a_version_in_redis_is_never_believed(valkey_url: str, app: App) -> None:
    """Single-bit flips over manifest and chunks: each is refused, and the scorer keeps what it has."""
    rng = np.random.default_rng(5)
    with open_weights(valkey_url, "damage") as store, redis.Redis.from_url(valkey_url) as raw:
        held = MemoryWeights("damage")
        publisher = Publisher(app, held, force=True)
        publisher.offer(light_arrays(app), position=1, step=1, trained_until_ms=1)
        publisher.finish()
        whole = held.fetch().manifest
        version = store.publish(whole, held.held[1].chunks).version
        keys = [
            names.manifest_key("damage", version),
            *(names.blob_key("damage", version, n) for n in range(len(held.held[1].chunks))),
        ]
        refused = 0
        for _ in range(120):
            key = keys[rng.integers(len(keys))] if rng.random() < 0.7 else keys[0]
            before = raw.get(key)
            if not before:
                continue
            data = bytearray(before)
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            raw.set(key, bytes(data))
            with pytest.raises(RocketError):
                store.fetch(version)
            raw.set(key, before)
            refused += 1
        assert refused > 80
        assert store.fetch(version).manifest.version == version


def rocket(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_the_commands_score_and_roll_back_on_one_folder(tmp_path: Path) -> None:
    app, weights = load_app("adsim"), str(tmp_path / "w")
    with open_weights(weights, "adsim") as store:
        for number in (1, 2):
            publish(app, store, number)
    asked, out = tmp_path / "requests.ndjson", tmp_path / "answers.ndjson"
    asked.write_bytes(b"".join(line + b"\n" for line in [*requests(app, 5, 4), b"junk"]))
    scores = ("score", "--requests", str(asked), "--weights", weights, "--out", str(out))
    figures = json.loads(rocket(*scores, "--json").stdout.splitlines()[-1])
    assert (figures["requests"], figures["candidates"], figures["model_version"]) == (6, 20, 2)
    assert len(out.read_text().splitlines()) == 6
    done = rocket("rollback", "--weights", weights, "--to", "1", "--why", "drill", "--json")
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "model": "adsim", "from": 2, "to": 1, "why": "drill", "held": [1, 2], "serving": [],
    }  # fmt: skip
    assert "answered by version 1" in rocket(*scores).stdout


def test_a_version_that_is_not_there_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    app, weights = load_app("adsim"), str(tmp_path / "w")
    with open_weights(weights, "adsim") as store:
        publish(app, store, 1)
    (tmp_path / "r").write_bytes(b"")
    words = ("score", "--requests", str(tmp_path / "r"), "--weights", weights, "--out", str(tmp_path / "a"))
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words, "--version", "9"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"rocket: {weights}: no version 9 of model 'adsim'; held: 1\n"
