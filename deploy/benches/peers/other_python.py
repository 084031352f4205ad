"""Peers that need libraries which Rocket does not: measured in a process of a Python that has them."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from contracts.errors import RocketError


class CtrLibraries:
    """DeepCTR-Torch and FuxiCTR on some minibatches, in turn with whatever is measured here.

    Args:
        python: that can import them.
        folder: for the minibatches.
        sizes: rows of each field.
        ids: [N, B, F] within each field.
        label: [N, B].
        hidden: of the tower.
        width: of an embedding.

    Raises:
        RocketError: the Python cannot be started, or has neither library.
    """

    def __init__(
        self,
        python: Path,
        folder: Path,
        *,
        sizes: list[int],
        ids: np.ndarray,
        label: np.ndarray,
        hidden: tuple[int, ...],
        width: int,
    ) -> None:
        case = folder / "minibatches.npz"
        np.savez(case, sizes=np.array(sizes), ids=ids, label=label)
        script = Path(__file__).with_name("ctr_libraries.py")
        command = [str(python), str(script), str(case), ",".join(map(str, hidden)), str(width)]
        try:
            self._child = subprocess.Popen(  # noqa: S603  # the Python that the user names
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
            )
        except OSError as error:
            raise RocketError(f"--peer-python {python}: cannot be started ({error})") from error
        try:
            self.names: list[str] = self._answer()
        except RocketError:
            self.close()
            raise
        if not self.names:
            self.close()
            raise RocketError(f"--peer-python {python}: has neither deepctr-torch nor fuxictr; install them there")

    def seconds(self, name: str) -> float:
        """CPU seconds that one of `names` takes for all minibatches."""
        assert self._child.stdin is not None  # noqa: S101
        self._child.stdin.write(name + "\n")
        self._child.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._child.stdout is not None  # noqa: S101
        line = self._child.stdout.readline()
        if not line:
            raise RocketError("the peers' process ended before it answered; its last words are above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> "CtrLibraries":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()
