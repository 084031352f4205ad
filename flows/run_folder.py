"""Where the parts of one run lie: every command that takes `--run DIR` finds them here."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ContractError
from nodes.files import write_whole


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The layout of a run's folder, as `rocket demo --out DIR` writes it.

    >>> RunFolder(Path("runs/demo")).summary.as_posix()
    'runs/demo/summary.json'
    """

    root: Path

    @property
    def events(self) -> Path:
        """impressions.ndjson, clicks.ndjson and, where it is known, truth.parquet."""
        return self.root / "events"

    @property
    def ingest(self) -> Path:
        """What ingest made: examples/, fates/, dead_letters/, ingest.json."""
        return self.root / "ingest"

    @property
    def examples(self) -> Path:
        """The example log."""
        return self.ingest / "examples"

    @property
    def checkpoints(self) -> Path:
        """Booster, light net, optimizers and position."""
        return self.root / "checkpoints"

    @property
    def versions(self) -> Path:
        """One line a version that a live trainer published."""
        return self.checkpoints / "versions.ndjson"

    @property
    def weights(self) -> Path:
        """Data of the embedded Valkey."""
        return self.root / "weights"

    @property
    def requests(self) -> Path:
        """Held-out impressions as ad requests."""
        return self.root / "requests.ndjson"

    @property
    def answers(self) -> Path:
        """The scorer's answers to them."""
        return self.root / "answers.ndjson"

    @property
    def summary(self) -> Path:
        """The run's figures."""
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        """One self-contained page."""
        return self.root / "report.html"

    @property
    def predictions(self) -> Path:
        """One row a held-out example."""
        return self.root / "predictions.parquet"

    @property
    def ledger(self) -> Path:
        """One row an event read."""
        return self.root / "ledger.parquet"

    def begin(self, figures: dict[str, Any]) -> None:
        """Make the folder ready for a new run: what an earlier run left in it goes, nothing else.

        Raises:
            ContractError: the folder holds something that is no run of Rocket.
        """
        if self.root.exists() and any(self.root.iterdir()) and not (self.root / "run.json").is_file():
            raise ContractError(
                f"{self.root}: is not empty and holds no run (no run.json); give a new folder with --out"
            )
        for folder in (self.events, self.ingest, self.checkpoints, self.weights):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.summary, self.report, self.predictions, self.ledger):
            path.unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        self.write_json("run.json", figures)

    def write_json(self, name: str, figures: dict[str, Any]) -> None:
        """Keep a stage's figures beside the run, whole or not at all."""
        write_whole(self.root / name, (json.dumps(figures, indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """A stage's figures back.

        Raises:
            ContractError: the stage has not run here.
        """
        path = self.root / name
        try:
            figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ContractError(
                f"{path}: cannot be read ({error}); `rocket demo --out {self.root}` writes it"
            ) from error
        return figures
