"""Java and Maven: found, too old, missing, failing; the jars come whole, once."""

import json
import threading
from pathlib import Path

import pytest

from contracts.errors import StoreError
from deploy.local import maven
from deploy.local.java import find_java
from tests.commands import rocket


def _script(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "pom.xml").write_text("<project/>")
    return tmp_path / "bin"


def test_a_java_that_is_too_old_is_named(path: Path) -> None:
    _script(path, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(StoreError, match=f"{path / 'java'} is Java 11: install Java 17"):
        find_java()
    _script(path, "java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    with pytest.raises(StoreError, match="does not tell its version"):
        find_java()
    _script(path, "java", "echo 'openjdk version \"21\" 2023-09-19' >&2")
    assert find_java() == path / "java"


def test_what_maven_says_is_the_sentence_and_no_folder_is_left(path: Path, tmp_path: Path) -> None:
    _script(path, "mvn", "echo '[INFO] x'; echo '[ERROR] no such artifact'; exit 1")
    with pytest.raises(StoreError, match=r"cannot bring K's jars \(no such artifact\)"):
        maven.find_jars("K", tmp_path / "pom.xml", tmp_path / "cache" / "k", proof="*.jar")
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["k.lock"]


def test_a_maven_that_brings_nothing_has_failed(path: Path, tmp_path: Path) -> None:
    _script(path, "mvn", "exit 0")
    with pytest.raises(StoreError, match="it says nothing"):
        maven.find_jars("K", tmp_path / "pom.xml", tmp_path / "cache" / "k", proof="*.jar")


def test_many_who_want_the_jars_at_once_bring_them_once(path: Path, tmp_path: Path) -> None:
    body = f"""
echo once >> {tmp_path}/calls
sleep 0.2
for word; do case $word in -DoutputDirectory=*) out=${{word#*=}};; esac; done
mkdir -p "$out"
touch "$out/k-1.jar"
"""
    _script(path, "mvn", body)
    cached, found = tmp_path / "cache" / "k", []

    def want() -> None:
        found.append(maven.find_jars("K", tmp_path / "pom.xml", cached, proof="k-*.jar"))

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cached] * 4
    assert (tmp_path / "calls").read_text() == "once\n"
    assert [jar.name for jar in cached.iterdir()] == ["k-1.jar"]


def test_without_maven_the_way_to_get_it_is_said(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no `mvn` on PATH: install Maven"):
        maven.find_jars("K", tmp_path / "pom.xml", tmp_path / "cache" / "k", proof="*.jar")


@pytest.mark.usefixtures("path")
def test_the_doctor_tells_what_only_live_runs_need_and_is_content_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    said = rocket("doctor", "--json")
    found = json.loads(said.out)
    rows = {what: found[what] for what in ("java", "maven", "go", "prism")}
    assert not any(row["ok"] for row in rows.values())
    assert all("only for live runs" in row["detail"] for row in rows.values())
    assert said.code == (0 if all(row["ok"] for what, row in found.items() if what not in rows) else 1)
