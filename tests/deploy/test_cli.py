"""The `rocket` command: light to start, one sentence an error, exit codes 0, 1 and 2."""

import importlib
import subprocess
import sys

import pytest
import typer

from deploy.cli import VERBS

_HEAVY = ("torch", "apache_beam", "great_expectations", "pandas", "polars", "pyarrow", "numpy", "redis", "kafka")


def _rocket(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "deploy.cli", *words], capture_output=True, text=True)


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('loaded', [name for name in {_HEAVY!r} if name in sys.modules]))\n"
        "from deploy.cli import main\n"
        "sys.argv = ['rocket', '--help']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"
    for verb in VERBS:
        assert f"  {verb} " in done.stdout


def test_an_unknown_verb_gets_a_suggestion_and_exit_2() -> None:
    done = _rocket("chekc")
    assert done.returncode == 2
    assert "no verb 'chekc'; did you mean 'check'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_wrong_usage() -> None:
    done = _rocket("check", "--ap", "adsim")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_error_is_one_sentence_and_exit_1() -> None:
    done = _rocket("check", "--app", "adsin")
    assert done.returncode == 1
    assert done.stderr == "rocket: no app 'adsin': not a folder, and did you mean 'adsim'?\n"
    assert done.stdout == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_one_command_with_help(verb: str) -> None:
    module = importlib.import_module(f"deploy.commands.{VERBS[verb][0]}")
    command = typer.main.get_command(module.app)
    assert command.help, verb
    assert module.__doc__
    assert f"rocket {verb}" in module.__doc__


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("torch", ["train", "--examples", "x", "--checkpoints", "y"], "train"),
        ("great_expectations", ["check", "--impressions", "x"], "check"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(package: str, words: list[str], extra: str) -> None:
    blocked = f"import sys; sys.modules[{package!r}] = None; sys.argv = {['rocket', *words]!r}\n"
    blocked += "from deploy.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"rocket: this verb needs the package {package}; install it with: pip install 'rocket-ctr[{extra}]'"
    ]
