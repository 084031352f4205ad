"""A new loss is one function and one golden row: all else finds it there, as in this copy of the sources."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.hints.golden import FS, FT, ZB, ZL
from tests.random_examples import small_app_folder

ROOT = Path(__file__).resolve().parents[3]
HERE = Path("tests/model/hints")
FUNCTIONS = '''"""A family of its own."""

from torch import Tensor

from contracts.declared_hints import hint
from model.hints.geometry import check_same_shape


@hint("equal", paper="Nobody, 2026", scaling="sum of fourth powers a row")
def quartic(fs: Tensor, ft: Tensor) -> Tensor:
    """The fourth power of how far apart neurons are."""
    check_same_shape("quartic", fs, ft, "put a Regressor on the student's")
    return (fs - ft).pow(4).sum(1)


@hint("logit", paper="Nobody, 2026", scaling="fourth power a row")
def quartic_logit(light_B: Tensor, booster_B: Tensor) -> Tensor:
    """The fourth power of how far apart the logits are."""
    check_same_shape("quartic_logit", light_B, booster_B, "give one logit a row of each")
    return (light_B - booster_B).pow(4)
'''
GOLDEN_ROWS = """
GOLDEN["quartic"] = (Golden({right!r}, lambda s, t: ((s - t) ** 4).sum(1)),)
GOLDEN["quartic_logit"] = (Golden({wrong!r}, lambda s, t: (s - t) ** 4),)
"""
LAWS = ("test_values.py", "test_laws.py", "test_invariances.py")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with two functions in a new file and two golden rows, the second of them wrong."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("contracts", "nodes", "flows", "deploy", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "model", folder / "model", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / HERE, folder / HERE, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "model/hints/quartics.py").write_text(FUNCTIONS)
    right, wrong = ((FS - FT) ** 4).sum(1).mean(), ((ZL - ZB) ** 4).mean() * (1 + 1e-9)
    with (folder / HERE / "golden.py").open("a") as golden:
        golden.write(GOLDEN_ROWS.format(right=float(right), wrong=float(wrong)))
    return folder


def python(copy: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", *map(str, words)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )


def test_rocket_check_takes_a_new_hint(copy: Path, tmp_path: Path) -> None:
    app = small_app_folder(tmp_path / "app") / "app.toml"
    app.write_text(app.read_text().replace("[rocket]\n", '[rocket]\nhint = "quartic_logit"\n'))
    done = python(copy, "-m", "deploy.cli", "check", "--app", app.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_laws_hold_a_new_hint_to_all_that_the_others_are_held_to(copy: Path) -> None:
    words = ["-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-k", "quartic or cosine or name_the_same"]
    done = python(copy, *words, *(HERE / law for law in LAWS))
    ended = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) (\S+)", done.stdout, re.MULTILINE)
    assert [name for how, name in ended if how != "PASSED"] == [
        name for how, name in ended if "gives_its_golden_value[quartic_logit-" in name
    ]
    assert sum(how == "FAILED" for how, _ in ended) == 1, done.stdout[-3000:]
    assert any("name_the_same_hints" in name for _, name in ended)

    def laws(hint: str) -> set[str]:
        return {re.sub(rf"\b{hint}(-row\d+)?\b", "", name) for _, name in ended if re.search(rf"\b{hint}\b", name)}

    assert laws("quartic") == laws("cosine")
    for law in ("golden_value", "on_random_tensors", "is_the_derivative", "behind_the_block", "sees_what_it_must"):
        assert any(law in name for name in laws("quartic")), law
