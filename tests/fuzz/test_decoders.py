"""Random and mutated bytes against the decoders of requests, answers and manifests: short here, minutes where slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_RUNS = {"request": 2_000, "response": 8_000, "manifest": 3_000}
_LONG_S = 90
#: One allocation is bounded, not the peak of the process: Linux hands that of the parent, which is pytest's, on to it.
_MEMORY = ("-malloc_limit_mb=512", "-rss_limit_mb=0")


def fuzzed(target: str, folder: Path, *options: str, timeout_s: float) -> None:
    """Fails with what the fuzzer found."""
    corpus = folder / "corpus"
    corpus.mkdir()
    command = [sys.executable, str(_ROOT / "tests" / "fuzz" / "decoders.py"), target, *options, "-max_len=8192",
               f"-artifact_prefix={folder}/", "-verbosity=0", *_MEMORY, str(corpus)]  # fmt: skip
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=timeout_s,
                          env=os.environ | {"PYTHONPATH": str(_ROOT)})  # fmt: skip
    found = [path.read_bytes()[:500] for path in folder.glob("crash-*")]
    assert done.returncode == 0, f"{found}\n{(done.stdout + done.stderr)[-3000:]}"
    assert {"taken", "refused"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("target", _RUNS)
def test_some_thousand_inputs_raise_nothing_but_what_is_documented(target: str, tmp_path: Path) -> None:
    fuzzed(target, tmp_path, f"-runs={_RUNS[target]}", "-seed=1", timeout_s=240)


@pytest.mark.slow
@pytest.mark.parametrize("target", _RUNS)
def test_minutes_of_inputs_raise_nothing_but_what_is_documented(target: str, tmp_path: Path) -> None:
    fuzzed(target, tmp_path, f"-max_total_time={_LONG_S}", timeout_s=_LONG_S + 180)
