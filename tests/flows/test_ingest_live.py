"""What `rocket ingest` on topics refuses before any broker is asked, and what its folder remembers."""

from pathlib import Path

import pytest

from contracts.errors import ContractError, CorruptError
from contracts.events import Mark
from contracts.positions import Basis
from flows.ingest_live import Cluster, run
from flows.live_folder import LiveFolder
from tests.commands import refused, rocket

IMPRESSIONS, CLICKS = "kafka://127.0.0.1:1/i", "kafka://127.0.0.1:1/c"
BASIS = Basis("adsim", "s", {"c": 2, "i": 1}, {"labels": {"wait_s": 10}})
START = {"c:0": Mark("c:0", 3, -(2**62)), "i:0": Mark("i:0", 0, 5)}


@pytest.mark.parametrize(
    "words",
    [
        ("--impressions", IMPRESSIONS, "--clicks", "clicks.ndjson", "--live"),
        ("--impressions", IMPRESSIONS, "--impressions", IMPRESSIONS, "--clicks", CLICKS, "--live"),
        ("--impressions", IMPRESSIONS, "--clicks", CLICKS),
        ("--impressions", IMPRESSIONS, "--clicks", CLICKS, "--live", "--until", "now"),
        ("--impressions", IMPRESSIONS, "--clicks", CLICKS, "--until", "tomorrow"),
        ("--impressions", "i.ndjson", "--clicks", "c.ndjson", "--live"),
        ("--impressions", IMPRESSIONS, "--clicks", CLICKS, "--live", "--begin", "yesterday"),
    ],
)
def test_words_that_do_not_go_together_are_wrong_usage(tmp_path: Path, words: tuple[str, ...]):
    assert rocket("ingest", *words, "--out", tmp_path / "out").code == 2


def test_a_broker_that_is_not_there_is_one_sentence(tmp_path: Path):
    said = rocket("ingest", "--live", "--impressions", IMPRESSIONS, "--clicks", CLICKS, "--out", tmp_path / "out")
    assert "127.0.0.1:1" in refused(said)


def test_the_embedded_runner_takes_no_topic_without_an_end(adsim, tmp_path: Path):
    with pytest.raises(ContractError, match="--until now"):
        run(adsim, IMPRESSIONS, CLICKS, tmp_path, cluster=Cluster(runner="embedded"))


def test_a_folder_remembers_where_its_topics_began_and_end(tmp_path: Path):
    folder = LiveFolder(tmp_path)
    assert folder.begun(BASIS, "examples") is None
    folder.begin(BASIS, "examples", START, {"c:0": 9})
    begun = folder.begun(BASIS, "examples")
    assert (begun.start, begun.ends) == (START, {"c:0": 9})


def test_a_folder_refuses_other_topics_other_settings_and_another_log(tmp_path: Path):
    folder = LiveFolder(tmp_path)
    folder.begin(BASIS, "examples", START, None)
    for other in (Basis("adsim", "s", {"c": 4, "i": 1}, BASIS.settings), Basis("adsim", "s", BASIS.topics, {})):
        with pytest.raises(ContractError, match="was made with other"):
            folder.begun(other, "examples")
    with pytest.raises(ContractError, match="its examples go to examples, not to kafka://"):
        folder.begun(BASIS, "kafka://h:1/t")
    (tmp_path / "topics.json").write_text("{")
    with pytest.raises(CorruptError, match="cannot be read"):
        folder.begun(BASIS, "examples")


def test_one_ingest_at_a_time_works_on_a_folder(tmp_path: Path):
    first, second = LiveFolder(tmp_path), LiveFolder(tmp_path)
    with first.locked(), pytest.raises(ContractError, match="another rocket ingest"), second.locked():
        pass
    with LiveFolder(tmp_path).locked():
        pass
