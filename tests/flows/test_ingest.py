"""Files of events through the whole flow, against a row-by-row oracle, and what the folder holds and refuses."""

import random
from pathlib import Path

import polars as pl
import pytest

from contracts.app import App, load_app
from contracts.buckets import bucket, hash64
from contracts.errors import ContractError, CorruptError, SchemaMismatchError
from contracts.segments import example_schema
from flows import ingest
from nodes.example_log import ExampleDirectory
from tests.flows.ingest_files import (
    START_MS,
    click,
    dead_letters,
    example_rows,
    fates,
    hash_of,
    impression,
    write_lines,
)
from tests.nodes.join_oracle import Event, mark_late, oracle

SMALL = {"ingest": {"chunk_rows": 97, "segment_rows": 32}}
BROKEN = {
    b"\xff\xfe": "not_utf8",
    b'{"impression_id": "i1", ': "not_json",
    b"[" * 5_000: "wrong_type",
    b"": "empty",
    b"7": "wrong_type",
}


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", SMALL)


def hostile(seed: int) -> tuple[list[bytes], list[bytes], list[Event], dict[tuple[str, int], str]]:
    """Lines of both files in arrival order, the good ones as the oracle's events, and the reason of each bad one."""
    draw = random.Random(seed)
    shown = [(n, draw.uniform(0, 9_000)) for n in range(300)]
    shown += [(n, at + draw.choice([0, 1, 30, 3_599, 3_600, 3_601, 5_000])) for n, at in draw.sample(shown, 40)]
    clicked = [(n, at + draw.choice([-70, -60, -5, 3, 40, 599, 600, 601, 3_000, 4_000])) for n, at in shown if n % 3]
    clicked += [(n + 5_000, draw.uniform(0, 9_000)) for n in range(15)]
    lines, events, bad = {}, [], {}
    for stream, rows in (("impressions", shown), ("clicks", clicked)):
        arriving = sorted(rows, key=lambda row: row[1] + draw.uniform(0, 55) + (draw.random() < 0.03) * 200)
        made: list[tuple[bytes, tuple[int, float] | None, str | None]] = []
        for number, at in arriving:
            if draw.random() < 0.06:
                raw, reason = draw.choice(list(BROKEN.items()))
                made.append((raw, None, reason))
            if draw.random() < 0.02:
                far = impression if stream == "impressions" else lambda n, at: click(n, n, at)
                made.append((far(number, draw.choice([-4e9, 3e9])), None, "bad_time"))
            if stream == "impressions":
                line = impression(number, at, position=draw.randint(1, 2))
            else:
                line = click(draw.randrange(3), number, at)
            made += [(line, (number, at), None)] * (2 if draw.random() < 0.05 else 1)
        lines[stream] = [line for line, _, _ in made]
        bad |= {(stream, at): reason for at, (_, _, reason) in enumerate(made) if reason}
        good = [
            Event(stream, at, f"i{row[0]}", START_MS + round(row[1] * 1000), hash_of(line))
            for at, (line, row, _) in enumerate(made)
            if row
        ]
        events += mark_late(good, 60_000)
    return lines["impressions"], lines["clicks"], events, bad


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_files_give_the_examples_and_fates_of_the_oracle(app, tmp_path, seed):
    shown, clicked, events, bad = hostile(seed)
    impressions, clicks = write_lines(tmp_path / "i.ndjson", shown), write_lines(tmp_path / "c.ndjson", clicked)
    figures = ingest.run(app, [impressions], [clicks], tmp_path / "out")
    examples, decided = oracle(events, 600_000, 3_600_000, 60_000)
    rows = example_rows(tmp_path / "out", app)
    assert rows.select("event_time_ms", "impression_id", "label").rows() == sorted(
        (at, name, label) for name, at, _, label in examples
    )
    assert {label for *_, label in examples} == {0, 1}
    became = {(row["stream"], row["line"]): (row["fate"], row["reason"]) for row in fates(tmp_path / "out").to_dicts()}
    assert became == decided | {key: ("dead_lettered", reason) for key, reason in bad.items()}
    assert {fate for fate, _ in became.values()} == {"accepted", "duplicate", "late", "orphan", "dead_lettered"}
    assert {reason for _, reason in became.values()} >= {
        "behind_disorder", "same_payload", "other_payload", "repeated_click", "after_wait", "no_impression",
    }  # fmt: skip
    assert figures["dead_lettered"] == len(bad)


def test_dead_letters_keep_bytes_reason_and_origin(app, tmp_path):
    lines = [impression(1, 0), b"\xff", impression(2, 1, colour="red"), impression(3, 2, position="4")]
    impressions, clicks = write_lines(tmp_path / "i.ndjson", lines), write_lines(tmp_path / "c.ndjson", [b"{"])
    ingest.run(app, [impressions], [clicks], tmp_path / "out")
    letters = dead_letters(tmp_path / "out").select("stream", "origin", "line", "reason", "raw").rows()
    assert letters == [
        ("clicks", str(clicks), 0, "not_json", b"{"),
        ("impressions", str(impressions), 1, "not_utf8", b"\xff"),
        ("impressions", str(impressions), 2, "unknown_column", lines[2]),
        ("impressions", str(impressions), 3, "wrong_type", lines[3]),
    ]


def test_an_example_carries_its_ids_times_and_features(app, tmp_path):
    impressions = write_lines(tmp_path / "i.ndjson", [impression(4, 0)])
    clicks = write_lines(tmp_path / "c.ndjson", [click(1, 4, 60)])
    ingest.run(app, [impressions], [clicks], tmp_path / "out")
    rows = example_rows(tmp_path / "out", app)
    assert dict(rows.schema) == example_schema(app.features)
    row = rows.row(0, named=True)
    assert row["example_id"] == hash64("i4\x1fsettled")
    assert (row["user_id"], row["item_id"], row["event_time_ms"], row["label"]) == ("u4", "a4", START_MS, 1)
    assert (row["user"], row["ad"]) == (bucket("u4", 32_768), bucket("a4", 8192))


def test_sampled_out_negatives_are_counted_and_said_so(tmp_path):
    app = load_app("adsim", SMALL | {"sampling": {"negative_keep_rate": 0.4}})
    impressions = write_lines(tmp_path / "i.ndjson", [impression(n, n) for n in range(200)])
    clicks = write_lines(tmp_path / "c.ndjson", [click(n, n, n + 1) for n in range(20)])
    figures = ingest.run(app, [impressions], [clicks], tmp_path / "out")
    rows, ledger = example_rows(tmp_path / "out", app), fates(tmp_path / "out").filter(stream="impressions")
    assert (figures["examples"], figures["sampled_out"]) == (rows.height, 200 - rows.height)
    assert 20 < rows.height < 200
    assert rows["label"].sum() == 20
    assert set(ledger.filter(outcome="example")["id"]) == set(rows["impression_id"])
    assert ledger.filter(outcome="sampled_out").height == figures["sampled_out"]


def test_empty_files_give_an_empty_complete_log(app, tmp_path):
    impressions, clicks = write_lines(tmp_path / "i.ndjson", []), write_lines(tmp_path / "c.ndjson", [])
    figures = ingest.run(app, [impressions], [clicks], tmp_path / "out")
    assert (figures["impressions_read"], figures["examples"]) == (0, 0)
    complete = ExampleDirectory(tmp_path / "out" / "examples").complete
    assert complete is not None
    assert complete.rows == 0


def test_a_file_named_twice_is_refused(app: App, tmp_path: Path) -> None:
    """Two events would have one origin and line, and the dead letters of one reading would replace the other's."""
    shown = write_lines(tmp_path / "i.ndjson", [impression(1, 0), b"[]"])
    with pytest.raises(ContractError, match=r"i\.ndjson: is named twice among the files of impressions"):
        ingest.run(app, [shown, tmp_path / "." / "i.ndjson"], [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_one_sentence(app, tmp_path):
    with pytest.raises(ContractError, match=r"none\.ndjson: no readable file of clicks"):
        ingest.run(app, [write_lines(tmp_path / "i.ndjson", [])], [tmp_path / "none.ndjson"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def done(app, tmp_path) -> tuple[Path, Path, Path]:
    impressions = write_lines(tmp_path / "i.ndjson", [impression(n, n) for n in range(100)])
    clicks = write_lines(tmp_path / "c.ndjson", [click(n, n, n + 1) for n in range(0, 100, 9)])
    ingest.run(app, [impressions], [clicks], tmp_path / "out")
    return impressions, clicks, tmp_path / "out"


def snapshot(out: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(out.rglob("*")) if p.is_file()}


def test_a_rerun_on_a_finished_folder_changes_nothing(app, done):
    impressions, clicks, out = done
    before, told = snapshot(out), []
    figures = ingest.run(app, [impressions], [clicks], out, on_progress=lambda *seen: told.append(seen))
    assert (snapshot(out), told) == (before, [])
    assert figures["examples"] == 100


def test_a_rerun_notices_a_segment_that_changed(app, done):
    impressions, clicks, out = done
    path = sorted((out / "examples").glob("*.arrow"))[1]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CorruptError, match=path.name):
        ingest.run(app, [impressions], [clicks], out)


def test_another_input_into_the_same_folder_is_refused(app, done):
    impressions, clicks, out = done
    before = snapshot(out)
    with clicks.open("ab") as file:
        file.write(click(1, 3, 4) + b"\n")
    with pytest.raises(ContractError, match="holds the results of other clicks"):
        ingest.run(app, [impressions], [clicks], out)
    with pytest.raises(ContractError, match="other settings"):
        ingest.run(load_app("adsim", SMALL | {"labels": {"wait_s": 7}}), [impressions], [clicks], out)
    assert snapshot(out) == before


def test_a_foreign_reader_is_refused(done, kuairand):
    _, _, out = done
    with pytest.raises(SchemaMismatchError, match="but the app has"):
        example_rows(out, kuairand)


def test_progress_counts_the_events_read(app, tmp_path):
    impressions = write_lines(tmp_path / "i.ndjson", [impression(n, n) for n in range(200)])
    clicks, told = write_lines(tmp_path / "c.ndjson", [click(1, 1, 2)]), []
    ingest.run(app, [impressions], [clicks], tmp_path / "out", on_progress=lambda *seen: told.append(seen))
    assert told[-1] == ("read", 201)
    assert [rows for _, rows in told] == sorted({rows for _, rows in told})


def test_what_a_killed_run_left_of_its_ledger_is_not_counted_twice(app, done):
    impressions, clicks, out = done
    whole, before = fates(out), snapshot(out / "examples")
    (out / "examples" / "complete.json").unlink()  # as if killed before the mark, with a part cut elsewhere
    whole.head(7).write_parquet(out / "fates" / "part-0.parquet")
    ingest.run(app, [impressions], [clicks], out)
    assert fates(out).equals(whole)
    assert {name: data for name, (_, data) in snapshot(out / "examples").items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_an_error_of_a_node_comes_out_as_itself(app, tmp_path):
    impressions = write_lines(tmp_path / "i.ndjson", [impression(n, n) for n in range(40)])
    clicks = write_lines(tmp_path / "c.ndjson", [])
    out = tmp_path / "out"
    ingest.run(app, [impressions], [clicks], out)
    log = out / "examples"
    (log / "complete.json").unlink()  # as if killed at the very end, and then a segment was exchanged
    second = sorted(log.glob("*.arrow"))[1]
    second.write_bytes(sorted(log.glob("*.arrow"))[0].read_bytes())
    with pytest.raises(ContractError, match="holds other rows than this input gives"):
        ingest.run(app, [impressions], [clicks], out)


def test_the_frames_of_a_part_hold_the_columns_of_the_ledger(done):
    assert fates(done[2]).columns == [
        "stream", "origin", "line", "id", "event_time_ms", "fate", "reason", "outcome",
    ]  # fmt: skip
    assert isinstance(fates(done[2]), pl.DataFrame)
