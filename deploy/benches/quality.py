"""What co-training gains, on a real log and on simulated ads: light net, booster, Rocket and its ablations, peers.

Every model learns the same rows once, in time order, and is judged on the last days: frozen, and going on (each
minibatch predicted, then learnt). Differences are paired by seed; their error is given over seeds and over resampled
users. `booster alone` is Rocket's own booster: with separate tables and the gradient block it feels nothing of the
light net (law 10), so it is the booster that would be trained alone.

Without `--data` only simulated ads; with the KuaiRand folder its log too, and then `gain` and `models` are of the log.
`--variants` makes some rows of the one table alone: the log's where there is one, else that of simulated ads.
"""

from pathlib import Path
from typing import Any

from contracts.app import App, laid_over, load_app
from contracts.errors import RocketError
from deploy.bench_options import BenchOptions
from deploy.bench_results import write_picture
from deploy.benches.quality_study.chart import draw
from deploy.benches.quality_study.cost import costs_of
from deploy.benches.quality_study.judge import DRAWS, UserBootstrap
from deploy.benches.quality_study.learn import known_truth, learn_linear, learn_nets
from deploy.benches.quality_study.peer_fuxictr import has_fuxictr, learn_fuxictr
from deploy.benches.quality_study.peers import learn_trees
from deploy.benches.quality_study.rows import Rows, adsim_rows, app_with, kuairand_rows
from deploy.benches.quality_study.study import Study
from deploy.benches.quality_study.variants import (
    BOOSTER,
    LIGHT,
    LOGGED,
    PLAIN,
    ROCKET,
    SIMULATED,
    Variant,
    all_features,
    chosen,
    variants_of,
)
from model.tensors import to_batch

_SEEDS = 5
_ADSIM_ROWS = 300_000
#: FuxiCTR's own defaults; widths and minibatches are those of Rocket's booster.
_FUXICTR = {"lr": 0.001, "embedding_l2": 0.0, "dropout": 0.0, "hidden": [256, 128, 64], "batch_rows": 256}


def run(quick: bool, options: BenchOptions) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """The whole study; quick: one seed, few rows and the first models only, which checks that it runs.

    Args:
        quick: small.
        options: `data`, the KuaiRand folder; `seeds`, 5 by default; `out` gets a picture; `peer_python`, an interpreter
            that has FuxiCTR; `variants`, only these rows and what they are compared with.
    """
    seeds = list(range(1, 1 + (options.seeds or (1 if quick else _SEEDS))))
    impressions = 20_000 if quick else _ADSIM_ROWS
    results: dict[str, Any] = {}
    if options.data is None:
        leading = _simulated(seeds, options, _named("adsim", options, quick=quick), impressions)
        results["adsim"] = _told(leading) | _in_order(leading)
    else:
        names = _named("kuairand", options, quick=quick)
        if options.variants is None:
            simulated = _simulated(seeds, options, _named("adsim", options, quick=quick), impressions)
            results["adsim"] = _told(simulated) | _in_order(simulated)
        leading = _logged(options.data, seeds, options, names)
    results |= _told(leading) | {"app": "adsim" if options.data is None else "kuairand"}
    if options.out is not None:
        command = options.command("quality", quick=quick)
        write_picture(
            options.out / "quality.png", draw(results["models"], f"rocket bench quality: {results['app']}"), command
        )
    return results


def _named(app_name: str, options: BenchOptions, *, quick: bool) -> set[str]:
    """Which rows the table gets: those asked for, else all of a log and the few that simulated ads are asked for."""
    variants = variants_of(load_app(app_name))
    others = SIMULATED if app_name == "adsim" else LOGGED
    if options.variants is not None:
        return chosen(options.variants, variants, others)
    few = [LIGHT, ROCKET] if quick else [LIGHT, ROCKET, PLAIN]
    made = chosen(few, variants, ()) if quick or app_name == "adsim" else {v.name for v in variants}
    without = ("LightGBM", "FuxiCTR") if quick else ()
    return made | {name for name in others if not name.startswith(without)}


def _simulated(seeds: list[int], options: BenchOptions, names: set[str], impressions: int) -> Study:
    """On simulated ads, a world of its own for each seed: what a line, the nets and the truth itself make of them."""
    app, study = load_app("adsim"), Study()
    for seed in seeds:
        rows = adsim_rows(all_features(app), seed, impressions)
        users = UserBootstrap(rows.user, rows.label)
        if "linear" in names:
            study.add("linear", seed, rows, users, learn_linear(app, rows))
        for variant in variants_of(app):
            if variant.name in names:
                _learn(study, "adsim", variant, rows, users, [seed], options)
        if "truth" in names:
            study.add("truth", seed, rows, users, known_truth(rows))
    return study


def _logged(data: Path, seeds: list[int], options: BenchOptions, names: set[str]) -> Study:
    """On the KuaiRand log: variants and peers."""
    app = load_app("kuairand")
    rows = kuairand_rows(all_features(app), data)
    users, study = UserBootstrap(rows.user, rows.label), Study()
    for variant in variants_of(app):
        if variant.name in names:
            _learn(study, "kuairand", variant, rows, users, seeds, options)
    everything = next(v for v in variants_of(app) if v.name == "rich light alone")
    rich = app_with("kuairand", everything.settings, everything.seen)
    for fields, linear, seen in (("light fields", app, _light_only(app)), ("all fields", rich, app)):
        if (name := f"hashed LR (FTRL), {fields}") in names:
            study.add(name, 1, rows, users, learn_linear(linear, rows))
        for seed in seeds if (name := f"LightGBM, {fields}") in names else ():
            study.add(name, seed, rows, users, learn_trees(seen, rows, seed))
        _foreign(study, seen, rows, users, seeds, fields, names, options.peer_python)
    return study


def _learn(
    study: Study,
    app_name: str,
    variant: Variant,
    rows: Rows,
    users: UserBootstrap,
    seeds: list[int],
    options: BenchOptions,
) -> None:
    device = {"train": {"device": options.device}}
    app = app_with(app_name, laid_over(variant.settings, device), variant.seen, variant.added)
    batch = to_batch(rows.frame, app)
    costs = costs_of(app, batch.slice(rows.cut, batch.rows))
    for seed in seeds:
        learnt = learn_nets(app, rows, batch, seed)
        study.add(variant.name, seed, rows, users, learnt, against=variant.against, cost=costs["light"])
        if variant.teacher:
            name = BOOSTER if variant.name == ROCKET else f"{variant.name}: booster"
            study.add(name, seed, rows, users, learnt, net="booster", cost=costs["booster"])


def _foreign(
    study: Study,
    seen: App,
    rows: Rows,
    users: UserBootstrap,
    seeds: list[int],
    fields: str,
    names: set[str],
    python: Path | None,
) -> None:
    """FuxiCTR's nets, where a Python has them."""
    if python is None:
        return
    if has_fuxictr(python) is None:
        raise RocketError(
            f"--peer-python {python}: has no fuxictr; give a Python where `pip install fuxictr torch` ran"
        )
    for kind in ("dcn_v2", "deepfm"):
        for seed in seeds if (name := f"FuxiCTR {kind}, {fields}") in names else ():
            study.add(name, seed, rows, users, learn_fuxictr(seen, rows, seed, kind, python, _FUXICTR))


def _light_only(app: App) -> App:
    return app_with(app.name, {}, {feature.name: None for feature in app.features if feature.only == "booster"})


def _told(study: Study) -> dict[str, Any]:
    """The gain of the best rocket over the light net alone, where it was made; the table, and each seed."""
    table = study.table()
    told = {"models": table, "by_seed": study.by_seed(), "user_resamples": DRAWS}
    by_name = {row["model"]: row for row in table}
    if ROCKET not in by_name:
        return told
    mine, booster = by_name[ROCKET], by_name[BOOSTER]
    gain = {
        "auc": mine["d_auc"],
        "auc_se_seeds": mine["d_auc_se_seeds"],
        "auc_se_users": mine["d_auc_se_users"],
        "gauc": mine["d_gauc"],
        "logloss": mine["d_logloss"],
        "gap_recovered": mine["gap_recovered"],
        "gap_recovered_going_on": mine["gap_recovered_going_on"],
        "multiplications_ratio": booster["multiplications"] / mine["multiplications"],
    }
    if "d_expected_logloss" in mine:
        gain["expected_logloss"] = mine["d_expected_logloss"]
        gain["gap_recovered_expected_logloss"] = mine["gap_recovered_expected_logloss"]
    return {"gain": gain} | told


def _in_order(study: Study) -> dict[str, int]:
    """In how many worlds linear, light alone, co-trained light, booster and truth stand in this order."""
    orders = {"in_order": (LIGHT, ROCKET, BOOSTER)}
    orders["in_order_without_pairs"] = (f"{LIGHT}, without rows for pairs", PLAIN, f"{PLAIN}: booster")
    found = {}
    for figure, nets in orders.items():
        names = ("linear", *nets, "truth")
        if all(name in study.models for name in names):
            losses = [[row["expected_logloss"] for row in study.models[name].seeds] for name in names]
            found[figure] = sum(list(each) == sorted(each, reverse=True) for each in zip(*losses, strict=True))
    return found
