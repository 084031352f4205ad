"""What processes hold while they work: memory, open files, threads, processor time; and how fast it grows."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl
import psutil

#: One row a process and look.
SAMPLES = {
    "at_s": pl.Float64(),  # since the watch began
    "name": pl.String(),
    "pid": pl.Int64(),
    "rss_mb": pl.Float64(),  # resident memory, 10^6 bytes
    "fds": pl.Int64(),  # open files and sockets
    "threads": pl.Int64(),
    "cpu_s": pl.Float64(),  # of the process alone, since it began
}
_WRAPPERS = {"sh", "cat", "setpriv"}  # they only hold others


def process_name(command: Sequence[str], name: str) -> str | None:
    """What a process is called in figures; None for the wrappers around others.

    Args:
        command: its words.
        name: of its program, for what is none of ours.

    >>> process_name(["python3", "-m", "deploy.cli", "train", "--live"], "python3")
    'train'
    >>> process_name(["/opt/java", "-cp", "x", "kafka.Kafka", "server.properties"], "java")
    'kafka'
    >>> process_name(["/bin/sh", "-c", "wait", "prism"], "sh") is None
    True
    """
    if name in _WRAPPERS or not command:
        return None
    if "deploy.cli" in command:
        return next(iter(command[command.index("deploy.cli") + 1 :]), name)
    if "kafka.Kafka" in command:
        return "kafka"
    return {"valkey-server": "valkey", "redis-server": "valkey"}.get(name, name)


class ProcessWatch:
    """Looks at this process and everything that it has started, every so often, while the `with` block runs.

    Args:
        own_name: what this process is called.
        every_s: between two looks.
        clock: seconds that never go back.
    """

    def __init__(self, own_name: str, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._own_name, self._every_s, self._clock = own_name, every_s, clock
        self._rows: list[tuple[float, str, int, float, int, int, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process-watch", daemon=True)
        self._began_s = 0.0

    def __enter__(self) -> "ProcessWatch":
        self._began_s = self._clock()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def at_s(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began_s

    @property
    def samples(self) -> pl.DataFrame:
        """Everything seen so far, as SAMPLES."""
        return pl.DataFrame(list(self._rows), schema=SAMPLES, orient="row")

    def look(self) -> None:
        """One look now; a process that ends meanwhile is left out."""
        own, at_s = psutil.Process(), self.at_s
        for one in [own, *own.children(recursive=True)]:
            try:
                with one.oneshot():
                    name = self._own_name if one.pid == own.pid else process_name(one.cmdline(), one.name())
                    if name is not None:
                        cpu = one.cpu_times()
                        rss_mb = one.memory_info().rss / 1e6
                        seen = rss_mb, one.num_fds(), one.num_threads(), cpu.user + cpu.system
                        self._rows.append((at_s, name, one.pid, *seen))
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it is a zombie, or has ended
                continue

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every_s)


def robust_slope(at: Sequence[float], values: Sequence[float], most: int = 400) -> float:
    """The median of the slopes between all pairs of points (Theil and Sen); 0 for fewer than two.

    A third of the points may lie anywhere without moving it far.

    Args:
        at: where the points lie; not all the same.
        values: one a point.
        most: of more points, so many are taken, evenly.

    >>> robust_slope([0, 1, 2, 3, 4], [5, 7, 9, 1000, 13])
    2.0
    """
    if not len(at):
        return 0.0
    take = np.unique(np.linspace(0, len(at) - 1, min(len(at), most)).round().astype(np.int64))
    x, y = np.asarray(at, np.float64)[take], np.asarray(values, np.float64)[take]
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] != x[first]
    if not apart.any():
        return 0.0
    first, second = first[apart], second[apart]
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def growth(samples: pl.DataFrame, from_s: float, until_s: float) -> dict[str, dict[str, float]]:
    """How each process's figures moved between two moments; name -> figures.

    Args:
        samples: SAMPLES.
        from_s: the end of the warm-up.
        until_s: the end of steady work.

    Returns:
        rss_mb (median), rss_mb_per_hour, fds (last), fds_per_hour, threads (last), threads_per_hour, cpu (processors
        in use), processes (how many there were of that name).
    """
    found: dict[str, dict[str, float]] = {}
    steady = samples.filter(pl.col("at_s").is_between(from_s, until_s))
    for (name,), rows in steady.sort("at_s").group_by("name", maintain_order=True):
        at = rows["at_s"].to_list()
        figures = {"rss_mb": float(rows["rss_mb"].median() or 0)}  # type: ignore[arg-type]
        for column in ("rss_mb", "fds", "threads"):
            figures[f"{column}_per_hour"] = robust_slope(at, rows[column].to_list()) * 3600
        figures |= {"fds": float(rows["fds"][-1]), "threads": float(rows["threads"][-1])}
        spent = rows.group_by("pid").agg(pl.col("cpu_s").max() - pl.col("cpu_s").min())["cpu_s"].sum()
        figures["cpu"] = spent / (at[-1] - at[0]) if at[-1] > at[0] else 0.0
        found[str(name)] = figures | {"processes": float(rows["pid"].n_unique())}
    return found


def files_in(folders: Iterable[Path]) -> dict[str, int]:
    """How many files each folder holds, all levels; one that is not there holds none."""
    return {folder.name: sum(path.is_file() for path in folder.rglob("*")) for folder in folders}
