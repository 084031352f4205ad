"""Bad input at the level of the command: one counted dead letter an event, one sentence and exit code 1 a run."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import redis

from contracts import names
from contracts.app import App, load_app
from nodes.fake_traffic import requests
from nodes.weight_stores import open_weights
from tests.bad_events import BIG, Ingested
from tests.commands import Said, refused, rocket
from tests.flows.ingest_files import write_lines

pytestmark = pytest.mark.e2e

SMALL = ("--set", "train.batch_rows=64", "--set", "train.checkpoint.every_batches=2",
         "--set", "publish.gate.window_rows=64", "--set", "publish.every_rows=64")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("ingest --impressions {none} --clicks {none} --out {tmp}/o", "file of impressions"),
        ("ingest --impressions {some} --clicks {none} --out {tmp}/o", "file of clicks"),
        ("check --impressions {none}", "file of impressions"),
        ("train --examples {none} --checkpoints {tmp}/c", "example"),
        ("score --requests {none} --weights {tmp} --out {tmp}/a", "one JSON request a line"),
        ("score --requests {some} --weights {none} --out {tmp}/a", "no such folder"),
        ("publish --checkpoints {none} --weights {none} --force", "holds no checkpoint"),
        ("rollback --weights {none} --to 1 --why x", "no such folder"),
        ("evaluate --run {none}", "rocket demo"),
        ("report --run {none}", "rocket demo"),
        ("demo --app kuairand --data {none} --out {tmp}/d", "KuaiRand"),
        ("import kuairand {none} --out {tmp}/k", "KuaiRand"),
        ("ingest --impressions {tmp} --clicks {some} --out {tmp}/o", "directory"),
    ],
)
def test_a_missing_file_is_one_sentence(tmp_path: Path, words: str, why: str) -> None:
    some = write_lines(tmp_path / "some.ndjson", [])
    given = [word.format(none=tmp_path / "none", tmp=tmp_path, some=some) for word in words.split()]
    line = refused(rocket(*given))
    assert why in line
    assert str(tmp_path) in line


_APP_VERBS = {
    "demo": "--out {tmp}/d",
    "ingest": "--impressions f --clicks f --out {tmp}/o",
    "train": "--examples f --checkpoints {tmp}/c",
    "publish": "--checkpoints f --weights {tmp}/w",
    "rollback": "--weights {tmp}/w --to 1 --why x",
    "score": "--requests f --weights {tmp}/w --out {tmp}/a",
    "check": "",
    "import": "kuairand f --out {tmp}/k",
}


@pytest.mark.parametrize("verb", _APP_VERBS)
def test_an_unknown_app_is_one_sentence_with_a_suggestion(tmp_path: Path, verb: str) -> None:
    words = _APP_VERBS[verb].format(tmp=tmp_path).split()
    assert "no app 'adsin': not a folder, and did you mean 'adsim'?" in refused(rocket(verb, *words, "--app", "adsin"))
    assert not list(tmp_path.iterdir()), "nothing was begun"


@pytest.mark.parametrize("verb", _APP_VERBS)
def test_an_unknown_key_in_app_toml_is_one_sentence_with_file_and_suggestion(tmp_path: Path, verb: str) -> None:
    folder = changed_app(tmp_path / "app", lambda text: text.replace("wait_s", "wait_sec"))
    words = _APP_VERBS[verb].format(tmp=tmp_path).split()
    line = refused(rocket(verb, *words, "--app", folder))
    assert str(folder / "app.toml") in line
    assert "did you mean 'wait_s'?" in line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("check", "--set", "train.batchrows=7"), "did you mean 'batch_rows'?"),
        (("check", "--set", "train.batch_rows='7'"), "batch_rows"),
        (("check", "--set", "nonsense"), "section.key=value"),
    ],
)
def test_a_wrong_setting_is_one_sentence(words: tuple[str, ...], why: str) -> None:
    assert why in refused(rocket(*words))


def test_wrong_usage_exits_2() -> None:
    for words in (["ingest"], ["scor"], ["check", "--limit", "x"], ["demo", "--out", "x", "--impressions", "1"]):
        said = rocket(*words)
        assert (said.code, "Traceback" in said.err) == (2, False), words


def changed_app(folder: Path, change: Callable[[str], str]) -> Path:
    shutil.copytree(load_app("adsim").folder, folder)
    toml = folder / "app.toml"
    before = toml.read_text()
    toml.write_text(change(before))
    assert toml.read_text() != before
    return folder


@pytest.fixture(scope="module")
def other_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`adsim` with another feature table."""
    folder = tmp_path_factory.mktemp("other") / "app"
    return changed_app(folder, lambda text: text.replace("buckets = 2048", "buckets = 1024"))


@pytest.fixture(scope="module")
def trained(ingested: Ingested, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints and weights."""
    folder = tmp_path_factory.mktemp("trained")
    said = rocket(*train_words(ingested, folder / "c"), "--weights", folder / "w", "--json")
    assert said.code == 0, said.err
    figures = json.loads(said.out.splitlines()[-1])
    assert figures["checkpoints"] >= 2
    with open_weights(folder / "w", "adsim") as store:  # the gate may hold what so few rows taught
        held = store.current_version()
    if held is None:
        said = rocket("publish", "--checkpoints", folder / "c", "--weights", folder / "w", "--force", *SMALL)
        assert said.code == 0, said.err
    return folder


def train_words(ingested: Ingested, checkpoints: Path) -> list[str | Path]:
    return ["train", "--examples", ingested.out / "examples", "--checkpoints", checkpoints, *SMALL]


@pytest.fixture
def checkpoints(trained: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(trained / "c", tmp_path / "c")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before_it(
    ingested: Ingested, checkpoints: Path, damage: Callable[[Path], None], file: str, caplog: pytest.LogCaptureFixture
) -> None:
    *_, before, newest = sorted(path.name for path in checkpoints.glob("checkpoint-*"))
    damage(checkpoints / newest / file)
    said = rocket(*train_words(ingested, checkpoints), "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out.splitlines()[-1])["resumed_from"] == before
    assert newest in caplog.text, "it says so"


def test_checkpoints_that_are_all_broken_are_refused(ingested: Ingested, checkpoints: Path, tmp_path: Path) -> None:
    for path in checkpoints.glob("checkpoint-*"):
        flip_a_bit(path / "model.safetensors")
    held = sorted(path.name for path in checkpoints.iterdir())
    line = refused(rocket(*train_words(ingested, checkpoints)))
    assert "checkpoints is whole" in line
    assert "--fresh" in line
    assert sorted(path.name for path in checkpoints.iterdir()) == held, "nothing was begun blank"
    words = ("publish", "--checkpoints", checkpoints, "--weights", tmp_path / "w", "--force", *SMALL)
    assert "checkpoints is whole" in refused(rocket(*words))


def test_a_checkpoint_from_another_schema_is_refused_by_name(
    ingested: Ingested, checkpoints: Path, other_app: Path, adsim: App, tmp_path: Path
) -> None:
    ids = (adsim.schema_id, load_app(other_app).schema_id)
    out = tmp_path / "out"
    events = ("--impressions", ingested.impressions, "--clicks", ingested.clicks)
    assert rocket("ingest", "--app", other_app, *events, "--out", out).code == 0
    words = ("--app", other_app, "--checkpoints", checkpoints, *SMALL)
    for line in (
        refused(rocket("train", "--examples", out / "examples", *words)),
        refused(rocket("publish", "--weights", tmp_path / "w", "--force", *words)),
        refused(rocket("train", "--app", other_app, "--examples", ingested.out / "examples", "--checkpoints", out)),
    ):
        assert all(schema_id in line for schema_id in ids)


@pytest.fixture
def weights(trained: Path) -> Iterator[tuple[Path, redis.Redis]]:
    """The folder of the weights, open, and a client of its server; what a test breaks is mended after it."""
    with open_weights(trained / "w", "adsim") as store:
        client = store._redis
        kept = {key: client.dump(key) for key in client.scan_iter("ctr:*")}
        yield trained / "w", client
        for key, value in kept.items():
            client.restore(key, 0, value, replace=True)


@pytest.mark.parametrize("key", [names.blob_key("adsim", 1, 0), names.manifest_key("adsim", 1)])
def test_weights_with_a_flipped_bit_are_refused(
    weights: tuple[Path, redis.Redis], adsim: App, tmp_path: Path, key: str
) -> None:
    where, client = weights
    asked = write_lines(tmp_path / "r.ndjson", requests(adsim, 3, 2))
    words = ("score", "--requests", asked, "--weights", where, "--out", tmp_path / "a.ndjson", "--version", "1")
    assert rocket(*words).code == 0
    (tmp_path / "a.ndjson").unlink()
    data = bytearray(client.get(key))
    data[len(data) // 2] ^= 1
    client.set(key, bytes(data))
    assert "version 1 of model 'adsim'" in refused(rocket(*words))
    assert not (tmp_path / "a.ndjson").exists()
    assert "version 1 of model 'adsim'" in refused(rocket("rollback", "--weights", where, "--to", "1", "--why", "x"))


@pytest.mark.parametrize("verb", ["score", "rollback", "publish", "train"])
def test_redis_down_is_one_sentence(verb: str, ingested: Ingested, checkpoints: Path, tmp_path: Path) -> None:
    some = write_lines(tmp_path / "r.ndjson", [])
    words: dict[str, list[str | Path]] = {
        "score": ["--requests", some, "--out", tmp_path / "a"],
        "rollback": ["--to", "1", "--why", "x"],
        "publish": ["--checkpoints", checkpoints, "--force", *SMALL],
        "train": train_words(ingested, tmp_path / "new")[1:],
    }
    line = refused(rocket(verb, *words[verb], "--weights", "redis://:secret@127.0.0.1:1/0"))
    assert "redis://:***@127.0.0.1:1/0: cannot be reached" in line
    assert not (tmp_path / "new").exists(), "no trainer at work is fenced out by a start that is refused"


def test_bad_requests_are_refused_one_by_one_and_counted(trained: Path, adsim: App, tmp_path: Path) -> None:
    lines = requests(adsim, 4, 2)
    lines[1] = b"\xff"
    lines[2] = lines[2][:-9]
    asked = write_lines(tmp_path / "r.ndjson", [*lines, b"[" * 9000, b"", b'{"id":"' + b"x" * BIG + b'"}'])
    said = rocket("score", "--requests", asked, "--weights", trained / "w", "--out", tmp_path / "a.ndjson", "--json")
    figures = json.loads(said.out.splitlines()[-1])
    assert (said.code, figures["requests"], figures["refused"]["requests"]) == (0, 7, 5)
    answers = [json.loads(line) for line in (tmp_path / "a.ndjson").read_bytes().splitlines()]
    assert sum("error" in answer and answer["error"] is not None for answer in answers) == 5
    assert pl.read_parquet(tmp_path / "a.parquet").height == 4


def test_a_process_of_its_own_says_the_one_sentence_and_nothing_else(tmp_path: Path) -> None:
    words = ("ingest", "--impressions", str(tmp_path / "none"), "--clicks", "none", "--out", str(tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words], capture_output=True, text=True, timeout=120, check=False
    )
    refused(Said(done.returncode, done.stdout, done.stderr))
