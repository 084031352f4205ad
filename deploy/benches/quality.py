"""What co-training gains, on a real log and on simulated ads: light net, booster, Rocket and its ablations, peers.

Every model learns the same rows once, in time order, and is judged on the last days: frozen, and going on (each
minibatch predicted, then learnt). Differences are paired by seed; their error is given over seeds and over resampled
users. `booster alone` is Rocket's own booster: with separate tables and the gradient block it feels nothing of the
light net (law 10), so it is the booster that would be trained alone.

Without `--data` only simulated ads; with the KuaiRand folder its log too, and then `gain` and `models` are of the log.
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
from deploy.benches.quality_study.variants import BOOSTER, LIGHT, ROCKET, Variant, variants_of
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
            that has FuxiCTR.
    """
    seeds = list(range(1, 1 + (options.seeds or (1 if quick else _SEEDS))))
    results: dict[str, Any] = {}
    simulated = _simulated(seeds, options, impressions=20_000 if quick else _ADSIM_ROWS)
    results["adsim"] = _told(simulated) | {"in_order": _in_order(simulated, seeds)}
    leading = simulated
    if options.data is not None:
        leading = _logged(options.data, seeds, options, quick=quick)
    results |= _told(leading) | {"app": "adsim" if options.data is None else "kuairand"}
    if options.out is not None:
        command = options.command("quality", quick=quick)
        write_picture(
            options.out / "quality.png", draw(results["models"], f"rocket bench quality: {results['app']}"), command
        )
    return results


def _simulated(seeds: list[int], options: BenchOptions, *, impressions: int) -> Study:
    """On simulated ads, a world of its own for each seed: what a line, the nets and the truth itself make of them."""
    study = Study()
    for seed in seeds:
        rows = adsim_rows(load_app("adsim"), seed, impressions)
        users = UserBootstrap(rows.user, rows.label)
        study.add("linear", seed, rows, users, learn_linear(load_app("adsim"), rows))
        for variant in variants_of(load_app("adsim"))[:2]:
            _learn(study, "adsim", variant, rows, users, [seed], options)
        study.add("truth", seed, rows, users, known_truth(rows))
    return study


def _logged(data: Path, seeds: list[int], options: BenchOptions, *, quick: bool) -> Study:
    """On the KuaiRand log: all variants, and the peers."""
    app = load_app("kuairand")
    rows = kuairand_rows(app, data)
    users, study = UserBootstrap(rows.user, rows.label), Study()
    variants = variants_of(app)[:2] if quick else variants_of(app)
    for variant in variants:
        _learn(study, "kuairand", variant, rows, users, seeds, options)
    everything = next(v for v in variants_of(app) if v.name == "rich light alone")
    rich = app_with("kuairand", everything.settings, everything.seen)
    study.add("hashed LR (FTRL), light fields", 1, rows, users, learn_linear(app, rows))
    study.add("hashed LR (FTRL), all fields", 1, rows, users, learn_linear(rich, rows))
    if not quick:
        for seed in seeds:
            study.add("LightGBM, light fields", seed, rows, users, learn_trees(_light_only(app), rows, seed))
            study.add("LightGBM, all fields", seed, rows, users, learn_trees(app, rows, seed))
        _foreign(study, app, rows, users, seeds, options.peer_python)
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
    app = app_with(app_name, laid_over(variant.settings, device), variant.seen)
    batch = to_batch(rows.frame, app)
    costs = costs_of(app, batch.slice(rows.cut, batch.rows))
    for seed in seeds:
        learnt = learn_nets(app, rows, batch, seed)
        study.add(variant.name, seed, rows, users, learnt, against=variant.against, cost=costs["light"])
        if variant.teacher:
            name = BOOSTER if variant.name == ROCKET else f"{variant.name}: booster"
            study.add(name, seed, rows, users, learnt, net="booster", cost=costs["booster"])


def _foreign(study: Study, app: App, rows: Rows, users: UserBootstrap, seeds: list[int], python: Path | None) -> None:
    """FuxiCTR's nets, where a Python has them."""
    if python is None:
        return
    if has_fuxictr(python) is None:
        raise RocketError(
            f"--peer-python {python}: has no fuxictr; give a Python where `pip install fuxictr torch` ran"
        )
    for kind in ("dcn_v2", "deepfm"):
        for fields, seen in (("light fields", _light_only(app)), ("all fields", app)):
            for seed in seeds:
                learnt = learn_fuxictr(seen, rows, seed, kind, python, _FUXICTR)
                study.add(f"FuxiCTR {kind}, {fields}", seed, rows, users, learnt)


def _light_only(app: App) -> App:
    return app_with(app.name, {}, {feature.name: None for feature in app.features if feature.only == "booster"})


def _told(study: Study) -> dict[str, Any]:
    """The gain of the best rocket over the light net alone, the table, and each seed."""
    table = study.table()
    by_name = {row["model"]: row for row in table}
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
    return {"gain": gain, "models": table, "by_seed": study.by_seed(), "user_resamples": DRAWS}


def _in_order(study: Study, seeds: list[int]) -> int:
    """In how many worlds linear, light alone, co-trained light, booster and truth stand in this order."""
    names = ("linear", LIGHT, ROCKET, BOOSTER, "truth")
    losses = [[row["expected_logloss"] for row in study.models[name].seeds] for name in names]
    return sum(list(each) == sorted(each, reverse=True) for each in zip(*losses, strict=True))
