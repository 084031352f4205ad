"""Which method of the distillation shelf helps a light CTR net: every loss by name, every scheme, the same budget.

Every method learns the same rows once, in time order, and its light net is judged on the last rows, as it would be
published where they begin. Differences to the light net alone and to Rocket as the app ships are paired by seed. A hint
has the weight at which its gradient on the light tower is half as long as the label's (`balanced`); schemes have their
papers' weights. Logloss is the expected one where the truth is known, which spares it the chance in the labels; AUC is
of the labels. `d_` is the difference to the light net alone, `r_` that to Rocket, each with its standard error over
seeds, `_se`, which is 0 for one seed. `train_cpu_s` is of training; where a method needs a teacher that was trained
before, this is counted too.

Without `--data` on simulated ads, a world of its own for each seed (`--impressions` says how large); with the KuaiRand
folder on its log too, or on it alone with `--impressions 0`. `--variants` makes some rows of the tables alone, beside
both that they are compared with. `gradient_attention` compares gradients by embeddings that both nets read, so its nets
share their tables, whatever the app says.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.app import laid_over, load_app
from deploy.bench_options import BenchOptions
from deploy.bench_results import write_picture
from deploy.benches.hints_study.chart import draw
from deploy.benches.hints_study.learn import balanced, learn, save_teacher, shy
from deploy.benches.hints_study.methods import LIGHT, ROCKET, Method, chosen, methods_of
from deploy.benches.quality_study.judge import figures, mean_and_error, paired
from deploy.benches.quality_study.rows import Rows, adsim_rows, kuairand_rows
from deploy.progress import TerminalProgress
from model.tensors import Batch, to_batch

Row = dict[str, Any]
_SEEDS = 5
_ADSIM_ROWS = 300_000
_FIGURES = ("auc", "logloss")


def run(quick: bool, options: BenchOptions) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """Every method on every log.

    Args:
        quick: one seed and few rows, which checks that it runs.
        options: `data`, the KuaiRand folder; `seeds`, 5 by default; `impressions` of a simulated world; `variants`,
            only these methods; `device`; `out` gets a picture a log.
    """
    seeds = list(range(1, 1 + (options.seeds or (1 if quick else _SEEDS))))
    usual = 12_000 if quick else _ADSIM_ROWS
    impressions = usual if options.impressions is None else options.impressions
    results: dict[str, Any] = {}
    with TerminalProgress() as progress:
        if impressions:
            world = load_app("adsim")
            results["adsim"] = compare(
                "adsim", lambda seed: adsim_rows(world, seed, impressions), seeds, options, progress
            )
        if options.data is not None:
            rows = kuairand_rows(load_app("kuairand"), options.data, first_rows=60_000 if quick else None)
            results["kuairand"] = compare("kuairand", lambda _: rows, seeds, options, progress)
    if options.out is not None:
        command = options.command("hints", quick=quick)
        for name, told in results.items():
            write_picture(
                options.out / f"hints-{name}.png", draw(told["methods"], f"rocket bench hints: {name}"), command
            )
    return results


def compare(
    app_name: str,
    rows_of: Callable[[int], Rows],
    seeds: list[int],
    options: BenchOptions,
    progress: TerminalProgress,
) -> dict[str, list[Row]]:
    """All methods on one app, or those that `options.variants` names.

    Args:
        app_name: a shipped app.
        rows_of: the rows of a seed.
        seeds: of first weights, and of the rows where these are drawn.
        options: `device` and `variants`.
        progress: is told of each training.

    Raises:
        RocketError: there is no method of a name.
    """
    found: dict[str, list[Row]] = {}
    kinds: dict[str, str] = {}
    weights: dict[str, float] = {}
    progress.stage(app_name)
    done = 0
    for seed in seeds:
        rows = rows_of(seed)
        methods = chosen(methods_of(load_app(app_name), train_rows=rows.cut), options.variants)
        batch = to_batch(rows.frame, load_app(app_name))
        with tempfile.TemporaryDirectory() as folder:
            for method in methods:
                if method.weight is not None and method.name not in weights:  # found once, on the first seed's rows
                    weights[method.name] = _weight(app_name, method, batch, seed, options.device)
                kinds[method.name] = method.kind
                row = _learnt(
                    app_name, method, weights.get(method.name), rows, batch, seed, options.device, Path(folder)
                )
                if method.taught:
                    row["train_cpu_s"] += found[ROCKET][-1]["train_cpu_s"]
                found.setdefault(method.name, []).append(row)
                done += 1
                progress.advance(done, len(seeds) * len(methods), f"seed {seed}, {method.name}")
    return {"methods": table(found, kinds, weights), "by_seed": [row for each in found.values() for row in each]}


def table(found: dict[str, list[Row]], kinds: dict[str, str], weights: dict[str, float]) -> list[Row]:
    """One row a method: means over seeds, paired differences to both yardsticks with their standard errors.

    Args:
        found: figures of each method, one a seed.
        kinds: of each method.
        weights: lambdas that were found.
    """
    rows = []
    for name, each in found.items():
        row: Row = {"method": name, "kind": kinds[name], "seeds": len(each), "weight": weights.get(name)}
        for figure in _FIGURES:
            if figure in each[0]:
                row[figure] = mean_and_error([seed[figure] for seed in each])[0]
                if name != LIGHT:
                    row[f"d_{figure}"], row[f"d_{figure}_se"] = paired(each, found[LIGHT], figure)
                if name not in {LIGHT, ROCKET}:
                    row[f"r_{figure}"], row[f"r_{figure}_se"] = paired(each, found[ROCKET], figure)
        row["train_cpu_s"] = mean_and_error([seed["train_cpu_s"] for seed in each])[0]
        rows.append(row)
    return rows


def _weight(app_name: str, method: Method, batch: Batch, seed: int, device: str) -> float:
    setting = method.weight or ""
    settings = laid_over(laid_over(method.settings, shy(setting)), {"train": {"device": device}})
    return balanced(load_app(app_name, settings), batch, setting, seed=seed)


def _learnt(
    app_name: str,
    method: Method,
    weight: float | None,
    rows: Rows,
    batch: Batch,
    seed: int,
    device: str,
    folder: Path,
) -> Row:
    """One method with one seed: its figures. The rocket run is kept for those that it teaches."""
    rocket: Row = {"watch_every": 0}
    if method.weight is not None and weight is not None:
        rocket[method.weight] = weight
    if method.taught:
        rocket["teacher"] = str(folder / "rocket")
    app = load_app(app_name, laid_over(method.settings, {"rocket": rocket, "train": {"device": device}}))
    learnt = learn(app, rows, batch, seed)
    if method.name == ROCKET:
        save_teacher(learnt.trainer, folder / "rocket")
    judged = figures(rows.label, learnt.p, truth=rows.truth)
    judged["logloss"] = judged.pop("expected_logloss", judged["logloss"])
    return {"method": method.name, "seed": seed, **judged, "train_cpu_s": learnt.cpu_s}
