"""The paper's experiment drawn: errors of every method, errors by depth, and the maps that the two nets share."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.benches.paper_grid import BY_DEPTH, TABLE_1, TABLES_2_3, Cell, Outcome, Plan
from deploy.benches.paper_tables import booster_errors, light_errors, likeness, main_depth, paper_of, runs_of
from deploy.benches.paper_train import Lab
from model.vision.wrn import Structure

#: Told apart by colour-blind readers too (Okabe and Ito).
_COLOURS = {"base": "#7F7F7F", "KD": "#E69F00", "rocket": "#0072B2", "booster": "#D55E00", "paper": "#009E73"}
_STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
}
_CHANNELS, _IMAGES, _GAP = 6, 3, 1


def pictures(plan: Plan, outcomes: Sequence[Outcome], device: torch.device) -> dict[str, Figure]:
    """Name -> figure; those whose trainings the plan lacks are left out."""
    with mpl.rc_context(_STYLE):
        made = {"methods": _methods(plan, outcomes)}
        if len({cell.depth for cell in plan.cells if cell.structure == "interval"}) > 1:
            made["depths"] = _depths(plan, outcomes)
        maps = _maps(plan, outcomes, device)
        return made | ({"maps": maps} if maps is not None else {})


def _methods(plan: Plan, outcomes: Sequence[Outcome]) -> Figure:
    """Left what was measured, a dot a seed and a bar at the median; right the paper's medians."""
    structures: list[Structure] = ["interval", "bottom"]
    structures = [one for one in structures if any(cell.structure == one for cell in plan.cells)]
    figure = Figure(figsize=(9.5, 3.6 * len(structures)), layout="constrained")
    grid = figure.subplots(len(structures), 2, squeeze=False)
    for (ours, theirs), structure in zip(grid, structures, strict=True):
        depth = main_depth(plan, structure)
        names = [name for name in TABLE_1 + TABLES_2_3 if Cell(structure, depth, name) in plan.cells]
        for place, name in enumerate(names):
            errors = light_errors(outcomes, Cell(structure, depth, name))
            _dots(ours, place, errors, _COLOURS.get(name, "#334155"))
        _dots(ours, len(names), booster_errors(outcomes, None), _COLOURS["booster"])
        paper = paper_of(plan, structure)
        for place, name in enumerate([*names, "booster alone"]):
            if name in paper:
                theirs.plot(paper[name], place, "D", color=_COLOURS["paper"], markersize=5)
        for axes in (ours, theirs):
            axes.set_yticks(range(len(names) + 1), [*names, "booster alone"])
            axes.set_ylim(len(names) + 0.6, -0.6)
            axes.set_xlabel("test error, %")
        told = f"{plan.name}, {structure} sharing, seeds: {len(plan.seeds)}, bar = median"
        ours.set_title(told, loc="left", fontsize=9)
        theirs.set_title(f"the paper on {_paper_name(plan)}, {structure} sharing", loc="left", fontsize=9)
    return figure


def _dots(axes: Axes, place: int, errors: list[float], colour: str) -> None:
    spread = np.linspace(-0.15, 0.15, len(errors)) if len(errors) > 1 else np.zeros(1)
    axes.plot(errors, place + spread, "o", color=colour, markersize=4, alpha=0.6)
    axes.plot([float(np.median(errors))] * 2, [place - 0.32, place + 0.32], color=colour, linewidth=2.2)


def _depths(plan: Plan, outcomes: Sequence[Outcome]) -> Figure:
    """Median errors by the light net's depth, from the lowest to the highest seed shaded."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    depths = sorted({cell.depth for cell in plan.cells if cell.structure == "interval"})
    for name in BY_DEPTH:
        found = [(depth, light_errors(outcomes, Cell("interval", depth, name))) for depth in depths]
        found = [(depth, errors) for depth, errors in found if errors]
        known = [depth for depth, _ in found]
        errors = [errors for _, errors in found]
        axes.plot(known, [np.median(one) for one in errors], "o-", color=_COLOURS[name], label=name, markersize=4)
        axes.fill_between(
            known,
            [min(one) for one in errors],
            [max(one) for one in errors],
            color=_COLOURS[name],
            alpha=0.1,
            linewidth=0,
        )
    alone = float(np.median(booster_errors(outcomes, None)))
    booster = f"booster alone (WRN-{plan.booster.depth})"
    axes.axhline(alone, color=_COLOURS["booster"], linestyle="--", linewidth=1.2, label=booster)
    axes.set_xticks(depths)
    axes.set_xlabel("depth of the light net")
    axes.set_ylabel("test error, % (median; shade: all seeds)")
    axes.set_title(f"{plan.name}: depth of the light net, booster fixed", loc="left", fontsize=9)
    axes.legend(frameon=False)
    return figure


def _maps(plan: Plan, outcomes: Sequence[Outcome], device: torch.device) -> Figure | None:
    """What the nets of the first seed see after their first group: channels side by side, then every group's energy."""
    seed, depth = plan.seeds[0], main_depth(plan, "interval")
    first = [one for one in outcomes if one.seed == seed]
    base, rocket = (runs_of(first, Cell("interval", depth, method)) for method in ("base", "rocket"))
    if not base or not rocket or base[0].light is None or rocket[0].light is None or rocket[0].booster is None:
        return None
    lab = Lab(plan.images(seed), plan.recipe, plan.booster, device)
    light = lab.light_size(depth, "interval")
    seen = {
        "light alone": lab.maps(base[0].light, light, _IMAGES),
        "light, rocket": lab.maps(rocket[0].light, light, _IMAGES),
        "its booster": lab.maps(rocket[0].booster, lab.booster_size, _IMAGES),
    }
    images = plan.images(seed).test.images[:_IMAGES]
    groups, channels = len(seen["its booster"]), min(_CHANNELS, seen["its booster"][0].shape[1])
    tiles = ["image", *(f"ch. {n + 1}" for n in range(channels)), *(f"energy {n + 1}" for n in range(groups))]
    figure = Figure(figsize=(0.75 * len(tiles) + 2.4, 0.75 * len(seen) * _IMAGES + 1.2), layout="constrained")
    grid = figure.subplots(_IMAGES, 1, squeeze=False)[:, 0]
    for image, axes in enumerate(grid):
        side = images.shape[2]
        rows = [_strip(images[image], [maps[image] for maps in nets], channels) for nets in seen.values()]
        axes.imshow(np.concatenate(rows), cmap="viridis", vmin=0, vmax=1)
        step = side + _GAP
        axes.set_xticks([step * n + side / 2 for n in range(len(tiles))], tiles if not image else [""] * len(tiles))
        axes.set_yticks([step * n + side / 2 for n in range(len(seen))], list(seen))
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    alike = {name: likeness(seen[name][0], seen["its booster"][0]) for name in ("light alone", "light, rocket")}
    figure.suptitle(
        f"{plan.name}, seed {seed}: channels after the first group, energy (sum of squares) after each group.\n"
        "Energy of group 1 beside the booster's, cosine on these images: "
        + ", ".join(f"{name} {value:.2f}" for name, value in alike.items()),
        fontsize=9,
    )
    return figure


def _strip(image_KHW: np.ndarray, maps: list[np.ndarray], channels: int) -> np.ndarray:
    """One net's row: the image, channels of the first group, the energy of each group; each tile from 0 to 1."""
    energies = [np.square(group).sum(0) for group in maps]
    tiles, side = [image_KHW.mean(0), *maps[0][:channels], *energies], image_KHW.shape[1]
    drawn = []
    for tile in tiles:
        low, high = float(tile.min()), float(tile.max())
        whole = np.kron((tile - low) / max(high - low, 1e-12), np.ones((side // tile.shape[0],) * 2))
        drawn.append(np.pad(whole, ((0, _GAP), (0, _GAP)), constant_values=np.nan))
    return np.concatenate(drawn, axis=1)


def _paper_name(plan: Plan) -> str:
    return plan.name if plan.folder is not None else "CIFAR-10"
