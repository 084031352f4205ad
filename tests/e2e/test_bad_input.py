"""Bad input at the level of the command: one counted dead letter an event, one sentence and exit code 1 a run."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import redis

from contracts import names
from contracts.app import App, load_app
from deploy import cli
from nodes.fake_traffic import requests
from nodes.weight_stores import open_weights
from tests.flows.ingest_files import START_MS, click, dead_letters, example_rows, fates, impression, write_lines

pytestmark = pytest.mark.e2e

GOOD = 400
BIG = 10 << 20
SMALL = ("--set", "train.batch_rows=64", "--set", "train.checkpoint.every_batches=2",
         "--set", "publish.gate.window_rows=64", "--set", "publish.every_rows=64")  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str


def rocket(*words: str | Path) -> Said:
    """The command itself in this process, from its arguments to its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["rocket", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    code = ended.value.code
    return Said(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def refused(said: Said) -> str:
    """The one sentence of a run that failed."""
    (line,) = said.err.splitlines()
    assert line.startswith("rocket: ")
    assert "Traceback" not in line
    assert (said.code, said.out) == (1, "")
    return line


def shown(number: int, *leave_out: str, **columns: object) -> bytes:
    row = json.loads(impression(number, number / 10, **columns))
    return json.dumps({name: value for name, value in row.items() if name not in leave_out}).encode()


def raw(column: str, value: bytes) -> bytes:
    """An impression with those bytes for a value."""
    return shown(9000, **{column: "@"}).replace(b'"@"', value)


def clicked(**columns: object) -> bytes:
    return click(9000, 1, 1, **columns)


#: What is wrong -> the line, the dead letter's reason, a part of its detail.
BAD_IMPRESSIONS: dict[str, tuple[bytes, str, str]] = {
    "not UTF-8": (raw("site", b'"\xff\xfe"'), "not_utf8", "not UTF-8"),
    "truncated": (shown(9000)[:-20], "not_json", "ends within"),
    "deeply nested list": (raw("history", b"[" * 50_000 + b"]" * 50_000), "wrong_type", "history"),
    "deeply nested in an unknown column": (raw("deep", b'{"a":' * 9000 + b"1" + b"}" * 9000), "unknown_column", "deep"),
    "deeply nested from the start": (b"[" * 50_000, "wrong_type", "JSON object"),
    "NaN": (raw("bid", b"NaN"), "not_finite", "NaN"),
    "Infinity": (raw("bid", b"-Infinity"), "not_finite", "Infinity"),
    "1e400": (raw("bid", b"1e400"), "out_of_range", "bid"),
    "an integer beyond 64 bits": (raw("position", b"9223372036854775808"), "out_of_range", "position"),
    "a time beyond 64 bits": (raw("event_time_ms", b"1" + b"0" * 30), "out_of_range", "event_time_ms"),
    "required null": (shown(9000, user_id=None), "missing", "user_id"),
    "required missing": (shown(9000, "item_id"), "missing", "item_id"),
    "wrong type": (shown(9000, position="1"), "wrong_type", "position"),
    "a boolean for a number": (shown(9000, bid=True), "wrong_type", "bid"),
    "unknown column": (shown(9000, is_click=1), "unknown_column", "is_click"),
    "a 10 MB string": (shown(9000, site="x" * BIG), "too_large", "1048576"),
    "1970": (shown(9000, event_time_ms=0), "bad_time", "event_time_ms"),
    "2099": (shown(9000, event_time_ms=4_070_908_800_000), "bad_time", "event_time_ms"),
    "microseconds": (shown(9000, event_time_ms=START_MS * 1000), "bad_time", "divide by 1000"),
    "seconds": (shown(9000, event_time_ms=START_MS // 1000), "bad_time", "multiply by 1000"),
    "an empty line": (b"", "empty", "empty"),
    "not an object": (b"7", "wrong_type", "JSON object"),
    "below its minimum": (shown(9000, position=0), "below_minimum", "position"),
    "a value that is not allowed": (shown(9000, device="toaster"), "not_allowed", "device"),
}  # fmt: skip
BAD_CLICKS: dict[str, tuple[bytes, str, str]] = {
    "not UTF-8": (b"\x80" + clicked(), "not_utf8", "byte 0"),
    "truncated": (clicked()[:10], "not_json", "ends within"),
    "required null": (clicked(impression_id=None), "missing", "impression_id"),
    "wrong type": (clicked(click_id=7), "wrong_type", "click_id"),
    "unknown column": (clicked(price=1), "unknown_column", "price"),
    "a 10 MB string": (clicked(click_id="x" * BIG), "too_large", "1048576"),
    "microseconds": (clicked(event_time_ms=START_MS * 1000), "bad_time", "divide by 1000"),
    "a fraction of a millisecond": (clicked(event_time_ms=START_MS + 0.5), "wrong_type", "event_time_ms"),
}


@dataclass(frozen=True)
class Ingested:
    """One run of `rocket ingest` over every bad line at once, each between good ones."""

    out: Path
    impressions: Path
    clicks: Path
    lines: dict[tuple[str, str], int]  #: (stream, what is wrong) -> line number
    figures: dict


def planted(good: list[bytes], bad: dict[str, tuple[bytes, str, str]]) -> tuple[list[bytes], dict[str, int]]:
    """The good lines with a bad one behind every third; and where each bad one stands."""
    lines, where = [], {}
    rest = iter(bad.items())
    for number, line in enumerate(good):
        lines.append(line)
        if number % 3 == 0 and (one := next(rest, None)) is not None:
            where[one[0]] = len(lines)
            lines.append(one[1][0])
    assert next(rest, None) is None
    return lines, where


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    folder = tmp_path_factory.mktemp("bad")
    good = [shown(number) for number in range(GOOD)]
    rival = [shown(GOOD - 1, site="elsewhere"), shown(GOOD - 1)]  # the same id: another payload, and the same again
    clicks = [click(number, number, number / 10 + 1) for number in range(0, GOOD, 10)]
    lines, where = planted(good, BAD_IMPRESSIONS)
    impressions = write_lines(folder / "impressions.ndjson", lines + rival)
    lines, where_clicks = planted(clicks, BAD_CLICKS)
    clicks_file = write_lines(folder / "clicks.ndjson", lines)
    said = rocket("ingest", "--impressions", impressions, "--clicks", clicks_file, "--out", folder / "out", "--json")
    assert (said.code, "Traceback" in said.err) == (0, False), said.err
    at = {("impressions", name): line for name, line in where.items()}
    at |= {("clicks", name): line for name, line in where_clicks.items()}
    return Ingested(folder / "out", impressions, clicks_file, at, json.loads(said.out.splitlines()[-1]))


@pytest.mark.parametrize(
    ("stream", "what"),
    [("impressions", what) for what in BAD_IMPRESSIONS] + [("clicks", what) for what in BAD_CLICKS],
)
def test_a_bad_event_is_one_dead_letter_with_reason_raw_bytes_and_origin(
    ingested: Ingested, stream: str, what: str
) -> None:
    given, reason, detail = (BAD_IMPRESSIONS if stream == "impressions" else BAD_CLICKS)[what]
    line = ingested.lines[stream, what]
    (letter,) = dead_letters(ingested.out).filter(stream=stream, line=line).rows(named=True)
    assert letter["reason"] == reason
    assert detail in letter["detail"]
    assert letter["origin"] == str(ingested.impressions if stream == "impressions" else ingested.clicks)
    assert (letter["raw"], letter["raw_bytes"]) == (given[: 1 << 20], len(given))
    (fate,) = fates(ingested.out).filter(stream=stream, line=line).rows(named=True)
    assert (fate["fate"], fate["reason"]) == ("dead_lettered", reason)


def test_every_good_event_among_the_bad_ones_lives_and_every_event_is_counted_once(
    ingested: Ingested, adsim: App
) -> None:
    figures = ingested.figures
    streams = figures["streams"]
    assert streams["impressions"] == {
        "read": GOOD + 2 + len(BAD_IMPRESSIONS), "accepted": GOOD, "duplicate": 2, "late": 0, "orphan": 0,
        "dead_lettered": len(BAD_IMPRESSIONS),
    }  # fmt: skip
    assert streams["clicks"] == {
        "read": GOOD // 10 + len(BAD_CLICKS), "accepted": GOOD // 10, "duplicate": 0, "late": 0, "orphan": 0,
        "dead_lettered": len(BAD_CLICKS),
    }  # fmt: skip
    assert (figures["examples"], figures["sampled_out"], figures["waiting"]) == (GOOD, 0, 0)
    rows = example_rows(ingested.out, adsim)
    assert rows.sort("event_time_ms")["impression_id"].to_list() == [f"i{number}" for number in range(GOOD)]
    assert rows["label"].sum() == GOOD // 10
    assert fates(ingested.out).height == figures["impressions_read"] + figures["clicks_read"]
    assert dead_letters(ingested.out).height == figures["dead_lettered"]


def test_the_same_id_with_another_payload_is_a_counted_duplicate(ingested: Ingested) -> None:
    same_id = fates(ingested.out).filter(stream="impressions", id=f"i{GOOD - 1}")
    assert sorted(same_id["fate"]) == ["accepted", "duplicate", "duplicate"]
    assert "other_payload" in same_id["reason"].to_list()


def test_check_names_the_same_bad_lines_and_exits_1(ingested: Ingested) -> None:
    said = rocket("check", "--impressions", ingested.impressions, "--clicks", ingested.clicks, "--json")
    found = json.loads(said.out.splitlines()[-1])["files"]
    assert (said.code, "Traceback" in said.err) == (1, False)
    for stream, bad in (("impressions", BAD_IMPRESSIONS), ("clicks", BAD_CLICKS)):
        assert found[stream]["lines"] - found[stream]["good"] == len(bad)


def test_an_empty_file_gives_no_example_and_no_error(tmp_path: Path, ingested: Ingested) -> None:
    empty = write_lines(tmp_path / "empty.ndjson", [])
    said = rocket("ingest", "--impressions", empty, "--clicks", empty, "--out", tmp_path / "out", "--json")
    figures = json.loads(said.out.splitlines()[-1])
    assert (said.code, figures["impressions_read"], figures["examples"]) == (0, 0, 0)
    assert "holds no examples" in refused(
        rocket("train", "--examples", tmp_path / "out/examples", "--checkpoints", tmp_path / "c")
    )
    for name in ("impressions", "clicks"):
        write_lines(tmp_path / "events" / f"{name}.ndjson", [])
    whole = rocket("demo", "--app", scaffold(tmp_path / "mine"), "--data", tmp_path / "events", "--out", tmp_path / "d")
    assert (whole.code, whole.err.splitlines()[-1].startswith("rocket: ")) == (1, True)
    assert "settled no example" in whole.err


def scaffold(folder: Path) -> Path:
    assert rocket("init", folder).code == 0
    return folder


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("ingest --impressions {none} --clicks {none} --out {tmp}/o", "file of impressions"),
        ("ingest --impressions {some} --clicks {none} --out {tmp}/o", "file of clicks"),
        ("check --impressions {none}", "No such file"),
        ("train --examples {none} --checkpoints {tmp}/c", "example"),
        ("score --requests {none} --weights {tmp} --out {tmp}/a", "one JSON request a line"),
        ("score --requests {some} --weights {none} --out {tmp}/a", "no such folder"),
        ("publish --checkpoints {none} --weights {none} --force", "no such folder"),
        ("rollback --weights {none} --to 1 --why x", "no such folder"),
        ("evaluate --run {none}", "rocket demo"),
        ("report --run {none}", "rocket demo"),
        ("demo --app kuairand --data {none} --out {tmp}/d", "KuaiRand"),
        ("import kuairand {none} --out {tmp}/k", "KuaiRand"),
        ("ingest --impressions {tmp} --clicks {some} --out {tmp}/o", "a folder, not a file"),
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
