"""Following topics gives the rows of reading them once, and those are the oracle's, whatever is killed meanwhile."""

import time
from pathlib import Path

import pytest

from contracts.app import App
from flows import audit, ingest, ingest_live
from flows.ingest_live import Cluster
from nodes.example_log import ExampleDirectory
from tests.commands import refused, rocket
from tests.kafka_broker import KafkaBroker
from tests.live_topics import SETS, LiveIngest, live_app, produce, rows_of, skewed, traffic

pytestmark = pytest.mark.e2e
BACKLOG = 1_000_000
EMBEDDED = Cluster(runner="embedded")


@pytest.fixture(scope="module")
def app() -> App:
    return live_app()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return traffic(tmp_path_factory.mktemp("traffic"), impressions=20_000, per_s=1_000)


@pytest.fixture(scope="module")
def skewed_topics(kafka: KafkaBroker, files: dict[str, Path]) -> dict[str, str]:
    topics = {stream: kafka.create(kafka.name(stream), partitions=4) for stream in files}
    produce(kafka.brokers, topics, files, skewed)
    return {stream: kafka.url(topic) for stream, topic in topics.items()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, skewed_topics: dict[str, str], app: App) -> Path:
    """The skewed topics, read once by the embedded runner."""
    out = tmp_path_factory.mktemp("reference") / "out"
    ingest_live.run(app, **skewed_topics, out=out, cluster=EMBEDDED, until="now")
    return out


def audited(app: App, urls: dict[str, str], out: Path) -> dict:
    log = ExampleDirectory(out / "examples").read(0, app.schema_id)
    return audit.run(app, urls["impressions"], urls["clicks"], out, log)


def test_topics_of_one_partition_give_the_rows_and_figures_of_their_files(
    kafka: KafkaBroker, files: dict[str, Path], app: App, tmp_path: Path
):
    topics = {stream: kafka.create(kafka.name(stream)) for stream in files}
    produce(kafka.brokers, topics, files, lambda *_: 0)
    urls = {stream: kafka.url(topic) for stream, topic in topics.items()}
    of_files = ingest.run(app, [files["impressions"]], [files["clicks"]], tmp_path / "files")
    of_topics = ingest_live.run(app, **urls, out=tmp_path / "topics", cluster=EMBEDDED, until="now")
    assert rows_of(tmp_path / "topics", app).equals(rows_of(tmp_path / "files", app))
    assert of_topics["streams"] == of_files["streams"]
    assert ExampleDirectory(tmp_path / "topics" / "examples").complete is not None
    again = ingest_live.run(app, **urls, out=tmp_path / "topics", cluster=EMBEDDED, until="now")
    assert again["streams"] == of_topics["streams"]


def test_skewed_topics_read_once_are_exact(app: App, skewed_topics: dict[str, str], reference: Path):
    figures = audited(app, skewed_topics, reference)
    assert figures["exact"], figures["wrong"]
    assert figures["examples"] > 15_000


def test_following_a_skewed_backlog_through_kills_gives_the_same_rows(
    app: App, skewed_topics: dict[str, str], reference: Path, tmp_path: Path
):
    expected, out = rows_of(reference, app), tmp_path / "live"
    live = LiveIngest(skewed_topics, out, "--live")
    live.until(lambda one: one.rows > 2_000)
    said = refused(rocket("ingest", "--live", *SETS, "--out", out, *named(skewed_topics)))
    assert "another rocket ingest is at work" in said
    live.kill()
    live = LiveIngest(skewed_topics, out, "--live")
    stood = live.rows
    live.until(lambda one: one.rows > stood)
    live.kill_prism()  # a runner that falls over is started again by the same process
    live.until(lambda one: "Prism ended in the middle of the run; going on with it from row" in one.said())
    live.until(lambda one: one.rows >= min(stood + 3_000, expected.height))
    live.kill()
    live = LiveIngest(skewed_topics, out, "--live")
    live.until(lambda one: one.rows >= expected.height)
    code, seconds, figures = live.stop()
    assert (code, figures["examples_in_log"], figures["ended"]) == (0, expected.height, False), live.said()
    assert figures["resumed_from"] is not None
    assert seconds < 10
    assert rows_of(out, app).equals(expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_skewed_backlog_of_a_million_events_is_exact_in_bounded_memory(
    kafka: KafkaBroker, app: App, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("million")
    lines = traffic(folder / "files", impressions=BACKLOG, per_s=2_000)
    topics = {stream: kafka.create(kafka.name(stream), partitions=4) for stream in lines}
    produce(kafka.brokers, topics, lines, skewed)
    urls = {stream: kafka.url(topic) for stream, topic in topics.items()}
    ingest_live.run(app, **urls, out=folder / "once", cluster=EMBEDDED, until="now")
    live = LiveIngest(urls, folder / "live", "--until", "now", "--runner", "prism")
    most_mib = 0.0
    while live.process.poll() is None:
        most_mib = max(most_mib, resident_mib(live.process.pid))
        time.sleep(0.5)
    assert live.stop()[0] == 0, live.said()
    assert rows_of(folder / "live", app).equals(rows_of(folder / "once", app))
    assert most_mib < 1_500


def resident_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
    except OSError:
        return 0.0


def named(urls: dict[str, str]) -> list[str]:
    return [word for stream, url in urls.items() for word in (f"--{stream}", url)]
