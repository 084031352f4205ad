"""Jars from a pom, brought once a user by Maven."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

from contracts.errors import StoreError

_MAVEN_S = 1200.0
_GET_MAVEN = "install Maven (Debian: apt-get install maven) so that `mvn` is on PATH; it brings them, once"


def rocket_cache() -> Path:
    """Where what was brought or built lies, per user."""
    return Path.home() / ".cache" / "rocket"


def find_maven(what: str, cached: Path) -> Path:
    """The `mvn` on PATH, which is to bring `what` into `cached`.

    Raises:
        StoreError: there is none.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise StoreError(f"{what}'s jars are not in {cached}, and there is no `mvn` on PATH: {_GET_MAVEN}")
    return Path(maven)


def find_jars(what: str, pom: Path, cached: Path, *, proof: str, settings: tuple[str, ...] = ()) -> Path:
    """The folder of the jars that a pom names: from the cache, else Maven brings them, once; others wait meanwhile.

    Args:
        what: whose jars they are, for sentences.
        pom: names them.
        cached: their folder, whole or absent.
        proof: a pattern that one of them must match.
        settings: `-Dname=value` for Maven.

    Raises:
        StoreError: there is no Maven, or it fails.
    """
    if cached.is_dir():
        return cached
    cached.parent.mkdir(parents=True, exist_ok=True)
    with (cached.parent / f"{cached.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.is_dir():
            _bring(what, pom, cached, proof, settings)
    return cached


def _bring(what: str, pom: Path, cached: Path, proof: str, settings: tuple[str, ...]) -> None:
    """Copy the jars beside, then rename."""
    maven = find_maven(what, cached)
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix=f"{cached.name}.") as name:
        private = shutil.copy(pom, name)  # Maven may write beside the pom, and ours may lie where nobody can write
        jars = Path(name) / "libs"
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        try:
            done = subprocess.run(  # noqa: S603  # the arguments are ours
                [str(maven), "-q", "-B", "-f", str(private), *settings, *goal],
                capture_output=True,
                text=True,
                timeout=_MAVEN_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise StoreError(
                f"Maven did not bring {what}'s jars within {_MAVEN_S:.0f} s; is the network slow?"
            ) from None
        if done.returncode != 0 or not any(jars.glob(proof)):
            errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
            told = (errors or done.stderr.splitlines() or ["it says nothing"])[0].removeprefix("[ERROR] ")[:400]
            with_settings = " ".join(("mvn", "-f", str(pom), *settings, "dependency:tree"))
            raise StoreError(f"Maven cannot bring {what}'s jars ({told}); mend that, then try again: {with_settings}")
        jars.rename(cached)
