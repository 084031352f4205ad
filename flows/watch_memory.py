"""The largest memory that a process and its children hold together."""

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """Samples the resident memory of the whole process tree while it is entered."""

    def __init__(self, every_s: float = 0.25) -> None:
        self._every_s, self._peak_bytes = every_s, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def mb(self) -> float:
        """The peak so far, in megabytes (10^6 bytes)."""
        self._sample()
        return self._peak_bytes / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        process = psutil.Process()
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:  # it ended between the listing and the look
                continue
        self._peak_bytes = max(self._peak_bytes, total)
