"""Which nets are trained on which images how often, and the training of them all.

On a CPU each training has one thread and there are as many at once as cores; on a GPU one follows the other.
"""

import functools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from deploy.benches.paper_data import ImageSet, Split, digits, names_in, read_set
from deploy.benches.paper_methods import METHODS
from deploy.benches.paper_train import Lab, Recipe, Run, Weights
from deploy.progress import TerminalProgress
from model.vision.wrn import Structure, WrnSize

TABLE_1 = ("base", "AT", "KD", "rocket", "rocket+KD")
TABLES_2_3 = ("no gradient block", "no sharing", "no joint training", "softmax MSE", "KD as the hint")
DEPTHS = (10, 16, 22, 28, 34, 40)
BY_DEPTH = ("base", "KD", "rocket")


class Cell(NamedTuple):
    """A light net to train."""

    structure: Structure
    depth: int
    method: str


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment on one set of images."""

    name: str  #: "digits", or one of `names_in`
    folder: Path | None  #: of the images; None for the digits
    learnt: int | None  #: how many training images; None takes all
    judged: int | None  #: how many test images
    booster: WrnSize
    recipe: Recipe
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]

    def images(self, seed: int) -> ImageSet:
        """Read once a process."""
        return _images(self.name, self.folder, self.learnt, self.judged, seed if self.folder is None else 0)


class Outcome(NamedTuple):
    """A training and what came of it."""

    seed: int
    cell: Cell | None  #: None: the booster alone
    run: Run


def digits_plan(*, quick: bool, seeds: int | None) -> Plan:
    """What two cores can do in minutes: narrow nets, few images to learn, so that there is something to gain."""
    recipe = Recipe(epochs=2 if quick else 40, batch=50, shift=1, mirror=False)
    booster = WrnSize(16 if quick else 40, 0.25 if quick else 0.5, channels=1, classes=10)
    depths = (10, 16) if quick else (10, 16, 28, 40)
    chosen = _seeds(seeds, 1 if quick else 3)
    return Plan("digits", None, 300, None, booster, recipe, chosen, _cells(10, booster.depth, depths))


def paper_plans(folder: Path, *, quick: bool, seeds: int | None) -> list[Plan]:
    """The paper's own: tables 1 to 3 and the depths on CIFAR-10, table 4 on CIFAR-100 and SVHN."""
    plans = []
    for name in names_in(folder):
        recipe = Recipe()
        if name == "SVHN":
            recipe = Recipe(80, optimiser="adam", lr=1e-3, falls=(0.25, 0.5, 0.75), shift=0, mirror=False, dropout=0.2)
        classes = 100 if name == "CIFAR-100" else 10
        cells = _cells(16, 40, DEPTHS) if name == "CIFAR-10" else tuple(Cell("interval", 16, one) for one in TABLE_1)
        plan = Plan(name, folder, None, None, WrnSize(40, 1, 3, classes), recipe, _seeds(seeds, 3), cells)
        if quick:
            few = tuple(cell for cell in cells if cell.depth in {16, 40} and cell.method in TABLE_1[::3])
            small = WrnSize(40, 0.25, 3, classes)
            plan = replace(plan, booster=small, recipe=replace(recipe, epochs=1), learnt=256, judged=500, cells=few)
        plans.append(plan)
        if name == "CIFAR-10" and not quick:
            wide = tuple(Cell("interval", 16, one) for one in TABLE_1)
            plans.append(replace(plan, booster=WrnSize(40, 2, 3, classes), cells=wide))
    return plans


def outcomes(plan: Plan, device: torch.device, progress: TerminalProgress) -> list[Outcome]:
    """Every training of the plan: the boosters first, which teach, then the light nets, the costly ones first."""
    done: list[Outcome] = []
    total = len(plan.seeds) * (1 + len(plan.cells))
    progress.stage(f"{plan.name} WRN-{plan.booster.depth}-{plan.booster.width:g}", total)
    order = sorted(plan.cells, key=lambda cell: (METHODS[cell.method].joint, cell.depth), reverse=True)
    with _workers(device) as pool:
        for outcome in _each(pool, [_Job(plan, str(device), seed, None, None) for seed in plan.seeds]):
            done.append(outcome)
            progress.advance(len(done), total, "booster alone")
        teachers = {one.seed: one.run.booster for one in done}
        jobs = [_Job(plan, str(device), seed, cell, teachers[seed]) for cell in order for seed in plan.seeds]
        for outcome in _each(pool, jobs):
            done.append(outcome)
            progress.advance(len(done), total, jobs[0].name(outcome.cell))
    return sorted(done, key=lambda one: (one.seed, (-1 if one.cell is None else plan.cells.index(one.cell))))


class _Job(NamedTuple):
    """What a worker is told."""

    plan: Plan
    device: str
    seed: int
    cell: Cell | None
    teacher: Weights | None

    @staticmethod
    def name(cell: Cell | None) -> str:
        return "" if cell is None else f"WRN-{cell.depth} {cell.method}"


def _trained(job: _Job) -> Outcome:
    plan = job.plan
    lab = Lab(plan.images(job.seed), plan.recipe, plan.booster, torch.device(job.device))
    if job.cell is None:
        return Outcome(job.seed, None, lab.train_booster(job.seed))
    method = METHODS[job.cell.method]
    run = lab.train_light(method, job.cell.depth, job.cell.structure, job.seed, job.teacher)
    return Outcome(job.seed, job.cell, run)


def _each(pool: Executor | None, jobs: list[_Job]) -> Iterator[Outcome]:
    if pool is None:
        yield from map(_trained, jobs)
        return
    for finished in as_completed([pool.submit(_trained, job) for job in jobs]):
        yield finished.result()


@contextmanager
def _workers(device: torch.device) -> Iterator[Executor | None]:
    """A process a core, of one thread each; None where a GPU does the work, which one process keeps busy."""
    if device.type != "cpu":
        yield None
        return
    cores = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


@functools.lru_cache(maxsize=1)
def _images(name: str, folder: Path | None, learnt: int | None, judged: int | None, seed: int) -> ImageSet:
    if folder is None:
        return digits(seed, learnt or 0)
    whole = read_set(folder, name)
    train = Split(whole.train.images[:learnt], whole.train.labels[:learnt])
    test = Split(whole.test.images[:judged], whole.test.labels[:judged])
    return whole._replace(train=train, test=test)


def _cells(light: int, booster: int, depths: tuple[int, ...]) -> tuple[Cell, ...]:
    """Tables 1 to 3 for both structures, and the depths."""
    named = TABLE_1 + TABLES_2_3
    cells = [Cell("interval", light, method) for method in named]
    cells += [Cell("bottom", booster, method) for method in named if method != "AT"]  # the authors have none either
    cells += [Cell("interval", depth, method) for depth in depths if depth != light for method in BY_DEPTH]
    return tuple(cells)


def _seeds(asked: int | None, usual: int) -> tuple[int, ...]:
    return tuple(range(1, (asked or usual) + 1))
