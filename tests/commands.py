"""The `rocket` command in this process, from its arguments to its exit code."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy import cli


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


def scaffold(folder: Path) -> Path:
    assert rocket("init", folder).code == 0
    return folder
