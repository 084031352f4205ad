"""What the user of `rocket bench` may choose for a stage beside `--quick`."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import RocketError


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The options of `rocket bench STAGE`; a stage that has a use for them is `run(quick, options)`.

    Raises:
        RocketError: a folder of data that is not there, no seed at all, an empty list of variants, or too few
            impressions to learn from.

    >>> BenchOptions(out=Path("my runs"), seeds=3).command("paper", quick=True)
    "rocket bench paper --quick --out 'my runs' --seeds 3"
    """

    data: Path | None = None  #: folder of real data; each stage says which files it looks for
    out: Path | None = None  #: folder for results: JSON, CSV, Markdown and what the stage draws
    seeds: int | None = None  #: how many seeds a figure is the median of; None leaves it to the stage
    device: str = "auto"  #: of torch; "auto" takes a GPU where there is one
    peer_python: Path | None = None  #: a Python with what does not go together with Rocket's own packages
    #: `quality`, `hints`: only these rows of the table, and what they are compared with; None: all
    variants: tuple[str, ...] | None = None
    #: `hints`: of each simulated world; 0: none, only the log in `data`; None leaves it to the stage
    impressions: int | None = None

    def __post_init__(self) -> None:
        if self.data is not None and not self.data.is_dir():
            raise RocketError(f"--data {self.data}: no such folder; give the one that holds the data files")
        if self.peer_python is not None and not self.peer_python.is_file():
            raise RocketError(f"--peer-python {self.peer_python}: no such file; give a Python interpreter")
        if self.seeds is not None and self.seeds < 1:
            raise RocketError(f"--seeds {self.seeds}: a figure needs at least one seed; give 1 or more")
        if self.impressions is not None and (self.impressions < 0 or (not self.impressions and self.data is None)):
            raise RocketError(f"--impressions {self.impressions}: nothing to learn; give more, or 0 with --data DIR")
        if self.variants == ():
            raise RocketError('--variants: names none; give some between semicolons, as in "rocket; no gate"')

    def command(self, stage: str, *, quick: bool) -> str:
        """The command that makes the same results again; it stands beside every table."""
        words = ["rocket", "bench", stage, *(["--quick"] if quick else [])]
        given = (("data", self.data), ("out", self.out), ("seeds", self.seeds), ("impressions", self.impressions))
        for name, value in given:
            words += [f"--{name}", str(value)] if value is not None else []
        words += ["--variants", "; ".join(self.variants)] if self.variants is not None else []
        words += ["--device", self.device] if self.device != "auto" else []
        words += ["--peer-python", str(self.peer_python)] if self.peer_python is not None else []
        return shlex.join(words)
