"""The experiment of the paper that Rocket is named after, with the loss that trains a CTR net here.

A light wide residual net beside a booster, through a booster's first blocks or first groups: alone (base), with
attention transfer (AT) and distillation (KD) from a booster trained before, rocket, and rocket with KD; rocket without
its gradient block, its sharing, its joint training; other hints; other depths of the light net. Zhou et al., AAAI 2018,
arXiv 1708.04106, tables 1 to 4 and figure 4.

Without `--data` the images are scikit-learn's digits, 300 to learn from: a check of the method at a size for two cores,
not of the paper's figures, which stand beside. With it, CIFAR-10, CIFAR-100 and SVHN by the paper's recipe, for a GPU.
"""

from typing import Any

from deploy.bench_options import BenchOptions
from deploy.bench_results import write_picture
from deploy.benches.paper_grid import Plan, digits_plan, outcomes, paper_plans
from deploy.benches.paper_tables import depth_table, likeness_table, methods_table, time_table
from deploy.progress import TerminalProgress
from model.precision import pick_device


def run(quick: bool, options: BenchOptions) -> dict[str, Any]:  # noqa: FBT001  # the form of every bench
    """Medians over three seeds, as the paper's (quick: one seed, tiny nets and a few epochs)."""
    if options.data is None:
        plans = [digits_plan(quick=quick, seeds=options.seeds)]
    else:
        plans = paper_plans(options.data, quick=quick, seeds=options.seeds)
    with TerminalProgress() as progress:
        return {_name(plan): _measured(plan, options, progress, quick=quick) for plan in plans}


def _measured(plan: Plan, options: BenchOptions, progress: TerminalProgress, *, quick: bool) -> dict[str, Any]:
    device = pick_device(options.device)
    done = outcomes(plan, device, progress)
    found: dict[str, Any] = {
        "methods": methods_table(plan, done),
        "depths": depth_table(plan, done),
        "likeness": likeness_table(plan, done, device),
        "time": time_table(plan, done),
        "seeds": len(plan.seeds),
        "epochs": plan.recipe.epochs,
        "device": str(device),
        "training_cpu_s": sum(one.run.cpu_s for one in done),
    }
    if options.out is not None:
        from deploy.benches.paper_pictures import pictures  # noqa: PLC0415  # matplotlib, only where something is drawn

        command = options.command("paper", quick=quick)
        for name, figure in pictures(plan, done, device).items():
            write_picture(options.out / f"paper-{_name(plan)}-{name}.png", figure, command)
    return {name: value for name, value in found.items() if value not in ([], {})}  # a part that the plan lacks


def _name(plan: Plan) -> str:
    width = "" if plan.booster.width <= 1 else f"-width-{plan.booster.width:g}"
    return f"{plan.name.lower()}{width}"
