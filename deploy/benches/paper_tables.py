"""What the trainings showed, as tables beside the figures of the paper (Zhou et al., AAAI 2018, arXiv 1708.04106).

Errors are % of the test images, medians over seeds. A gain is the mean over seeds of (base - method), both trained from
one seed on the same images, with its standard error.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deploy.benches.paper_grid import BY_DEPTH, TABLE_1, TABLES_2_3, Cell, Outcome, Plan
from deploy.benches.paper_train import Lab, Run, Weights
from model.vision.wrn import Structure, WideResNet, light_size, multiplications

Row = dict[str, Any]
_LOOKED_AT = 64  # images on which maps are compared
_BOOSTER, _COTRAINED = "booster alone", "booster in rocket"
#: Test error %, median of three seeds, WRN-16 beside WRN-40: tables 1 to 4 of the paper.
PAPER: dict[tuple[str, float, Structure], dict[str, float]] = {
    ("CIFAR-10", 1, "interval"): {
        "base": 8.77, "AT": 8.25, "KD": 8.39, "rocket": 7.87, "rocket+KD": 7.52, "no gradient block": 8.50,
        "no sharing": 8.06, "no joint training": 8.04, "softmax MSE": 8.32, "KD as the hint": 7.98,
        _COTRAINED: 6.64, _BOOSTER: 6.58,
    },
    ("CIFAR-10", 1, "bottom"): {
        "base": 8.69, "KD": 8.34, "rocket": 7.85, "rocket+KD": 7.51, "no gradient block": 8.30, "no sharing": 8.23,
        "no joint training": 8.23, "softmax MSE": 8.36, "KD as the hint": 8.26, _COTRAINED: 7.27, _BOOSTER: 6.58,
    },
    ("CIFAR-10", 2, "interval"): {
        "base": 6.31, "AT": 5.85, "KD": 6.08, "rocket": 5.67, "rocket+KD": 5.64, _COTRAINED: 5.20, _BOOSTER: 5.23,
    },
    ("CIFAR-100", 1, "interval"): {"base": 43.7, "AT": 34.1, "KD": 36.4, "rocket": 33.3, "rocket+KD": 33.0},
    ("SVHN", 1, "interval"): {"base": 3.58, "AT": 2.99, "KD": 2.31, "rocket": 2.29, "rocket+KD": 2.20},
}  # fmt: skip
#: Seconds on CIFAR-10: a teacher and its student one after the other, and rocket.
PAPER_SECONDS = (7275.3, 6153.0)


def runs_of(outcomes: Sequence[Outcome], cell: Cell | None) -> list[Run]:
    """The runs of a cell, in the order of the seeds."""
    return [one.run for one in outcomes if one.cell == cell]


def light_errors(outcomes: Sequence[Outcome], cell: Cell) -> list[float]:
    """The light net's error of each seed."""
    return [run.light_error for run in runs_of(outcomes, cell) if run.light_error is not None]


def booster_errors(outcomes: Sequence[Outcome], cell: Cell | None) -> list[float]:
    """The booster's error of each seed: alone (no cell), or as it trained along."""
    return [run.booster_error for run in runs_of(outcomes, cell) if run.booster_error is not None]


def paper_of(plan: Plan, structure: Structure) -> dict[str, float]:
    """The paper's figures for the plan's images; those of CIFAR-10 for images that it lacks."""
    known = (plan.name, plan.booster.width, structure)
    return PAPER[known if known in PAPER else ("CIFAR-10", 1, structure)]


def methods_table(plan: Plan, outcomes: Sequence[Outcome]) -> list[Row]:
    """Tables 1 to 4: a row a structure and method, best-known depth of the paper, beside the paper's error and gain."""
    rows = []
    for structure in ("interval", "bottom"):
        cells = [
            cell for cell in plan.cells if cell.structure == structure and cell.depth == main_depth(plan, structure)
        ]
        base = next((cell for cell in cells if cell.method == "base"), None)
        if base is None:
            continue
        paper = paper_of(plan, structure)
        alone = booster_errors(outcomes, None)
        rows += [_method_row(plan, outcomes, cell, base, alone, paper) for cell in _in_order(cells)]
        rocket = Cell(structure, base.depth, "rocket")
        for name, errors in ((_COTRAINED, booster_errors(outcomes, rocket)), (_BOOSTER, alone)):
            if errors:
                size = f"WRN-{plan.booster.depth}-{plan.booster.width:g}"
                row = {"structure": structure, "method": name, "net": size} | _errors(errors)
                rows.append(row | {"paper_error": paper.get(name)})
    return rows


def _method_row(
    plan: Plan, outcomes: Sequence[Outcome], cell: Cell, base: Cell, booster: list[float], paper: dict[str, float]
) -> Row:
    errors, from_base = light_errors(outcomes, cell), light_errors(outcomes, base)
    gains = [first - second for first, second in zip(from_base, errors, strict=True)]
    gap = statistics.fmean(from_base) - statistics.fmean(booster)
    row: Row = {"structure": cell.structure, "method": cell.method, "net": _net_name(plan, cell)} | _errors(errors)
    if cell.method != "base":
        row |= {"gain": statistics.fmean(gains), "gain_se": _standard_error(gains)}
        row |= {"gap_closed": statistics.fmean(gains) / gap if gap > 0 else None}
    if cell.method in paper:
        row |= {"paper_error": paper[cell.method]}
        row |= {"paper_gain": round(paper["base"] - paper[cell.method], 2)} if cell.method != "base" else {}
    return row | {"cpu_s": statistics.median(run.cpu_s for run in runs_of(outcomes, cell))}


def depth_table(plan: Plan, outcomes: Sequence[Outcome]) -> list[Row]:
    """The light net's depth against base, KD and rocket, the booster fixed: median errors and paired gains."""
    rows = []
    for depth in sorted({cell.depth for cell in plan.cells if cell.structure == "interval"}):
        cells = {name: Cell("interval", depth, name) for name in BY_DEPTH}
        found = {name: light_errors(outcomes, cell) for name, cell in cells.items() if cell in plan.cells}
        if "base" not in found:
            continue
        row: Row = {"light_depth": depth} | {name: statistics.median(errors) for name, errors in found.items()}
        for name in ("KD", "rocket"):
            if name in found:
                gains = [first - second for first, second in zip(found["base"], found[name], strict=True)]
                row |= {f"{name}_gain": statistics.fmean(gains), f"{name}_gain_se": _standard_error(gains)}
        net = WideResNet(light_size(plan.booster, depth, "interval"))
        row["parameters"] = sum(parameter.numel() for parameter in net.parameters())
        height, width = plan.images(plan.seeds[0]).test.images.shape[2:]
        row["multiplications"] = multiplications(net, height, width)
        rows.append(row)
    return rows


def time_table(plan: Plan, outcomes: Sequence[Outcome]) -> Row:
    """A teacher and then its student, against rocket: seconds of training, medians over seeds, and their ratio."""
    depth = main_depth(plan, "interval")
    alone, kd, rocket = (
        runs_of(outcomes, cell) for cell in (None, *(Cell("interval", depth, m) for m in ("KD", "rocket")))
    )
    if not kd or not rocket:
        return {}
    found: Row = {}
    for kind in ("cpu_s", "wall_s"):
        apart = [getattr(first, kind) + getattr(second, kind) for first, second in zip(alone, kd, strict=True)]
        together = [getattr(run, kind) for run in rocket]
        ratios = [second / first for first, second in zip(apart, together, strict=True)]
        found[f"rocket_over_teacher_then_student_{kind}"] = statistics.median(ratios)
        if kind == "cpu_s":
            found |= {
                "teacher_then_student_cpu_s": statistics.median(apart),
                "rocket_cpu_s": statistics.median(together),
            }
    return found | {"paper": PAPER_SECONDS[1] / PAPER_SECONDS[0]}


def likeness_table(plan: Plan, outcomes: Sequence[Outcome], device: torch.device) -> list[Row]:
    """How alike light net and booster look at images: the cosine of their attention maps, a row a group of blocks.

    A map is the sum of squares over channels, its mean over pixels taken off. `base` is beside the booster alone,
    `rocket` beside the booster that it trained with.
    """
    depth = main_depth(plan, "interval")
    found: dict[tuple[str, int], list[float]] = {}
    for seed in plan.seeds:
        lab = Lab(plan.images(seed), plan.recipe, plan.booster, device)
        mine = [one for one in outcomes if one.seed == seed]
        alone = mine[0].run.booster
        for method in ("base", "rocket"):
            run = next((one.run for one in mine if one.cell == Cell("interval", depth, method)), None)
            if run is None or run.light is None or alone is None:
                return []
            pairs = _maps_of(lab, depth, run.light, run.booster or alone)
            for group, (light, booster) in enumerate(pairs, start=1):
                found.setdefault((method, group), []).append(likeness(light, booster))
    return [
        {"group": group} | {method: statistics.median(found[method, group]) for method in ("base", "rocket")}
        for group in sorted({group for _, group in found})
    ]


def likeness(light_BKHW: np.ndarray, booster_BKHW: np.ndarray) -> float:
    """The mean cosine of centred attention maps, over images.

    >>> maps = np.random.default_rng(1).random((2, 3, 4, 4))
    >>> likeness(maps, 2 * maps[:, ::-1])
    1.0
    """
    energies = [np.square(maps.astype(np.float64)).sum(1).reshape(len(maps), -1) for maps in (light_BKHW, booster_BKHW)]
    light_BP, booster_BP = (energy - energy.mean(1, keepdims=True) for energy in energies)
    lengths_B = np.linalg.norm(light_BP, axis=1) * np.linalg.norm(booster_BP, axis=1)
    cosine_B = (light_BP * booster_BP).sum(1) / np.maximum(lengths_B, 1e-12)
    return round(float(cosine_B.mean()), 6)


def _maps_of(lab: Lab, depth: int, light: Weights, booster: Weights) -> list[tuple[np.ndarray, np.ndarray]]:
    mine = lab.maps(light, lab.light_size(depth, "interval"), _LOOKED_AT)
    return list(zip(mine, lab.maps(booster, lab.booster_size, _LOOKED_AT), strict=True))


def main_depth(plan: Plan, structure: Structure) -> int:
    """The depth of the tables: of the plan's first cell of the structure."""
    return next((cell.depth for cell in plan.cells if cell.structure == structure), 0)


def _in_order(cells: list[Cell]) -> list[Cell]:
    order = TABLE_1 + TABLES_2_3
    return sorted(cells, key=lambda cell: order.index(cell.method))


def _net_name(plan: Plan, cell: Cell) -> str:
    rest = " less group 3" if cell.structure == "bottom" else ""
    return f"WRN-{cell.depth}-{plan.booster.width:g}{rest}"


def _errors(errors: list[float]) -> Row:
    return {"error": statistics.median(errors), "lowest": min(errors), "highest": max(errors)}


def _standard_error(values: list[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
