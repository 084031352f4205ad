"""What the models of a study were seed by seed, and the table made of it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.benches.quality_study.cost import Cost
from deploy.benches.quality_study.judge import UserBootstrap, figures, mean_and_error, paired
from deploy.benches.quality_study.learn import Learnt
from deploy.benches.quality_study.rows import Rows
from deploy.benches.quality_study.variants import BOOSTER, LIGHT
from model.metrics import Floats, auc

Row = dict[str, Any]
_SHOWN = ("auc", "gauc", "logloss", "calibration", "expected_logloss", "going_on_auc", "going_on_logloss", "tuning_auc")


@dataclass
class Model:
    """One row of the table to be."""

    name: str
    against: str  #: the model that it is compared with
    seeds: list[Row] = field(default_factory=list)
    draws: list[Floats] = field(default_factory=list)  #: AUC under resampled users, one array a seed
    cost: Cost | None = None


class Study:
    """Collects what models say, judges it at once and forgets the predictions."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}

    def add(
        self,
        name: str,
        seed: int,
        rows: Rows,
        users: UserBootstrap,
        learnt: Learnt,
        *,
        net: str = "light",
        against: str = LIGHT,
        cost: Cost | None = None,
    ) -> None:
        """Judge what a net of a model says of the rows.

        Args:
            name: of the model.
            seed: of it.
            rows: which it was trained and is judged on.
            users: of those rows.
            learnt: what it says.
            net: which of its nets.
            against: the model that it is compared with.
            cost: of the net; None where it is no net.
        """
        model = self.models.setdefault(name, Model(name, against))
        p = learnt.frozen[net]
        found: Row = {"model": name, "seed": seed, **figures(rows.label, p, rows.user, rows.truth)}
        if net in learnt.going_on:  # GAUC is judged frozen only: labels that were learnt meanwhile bias it down
            going_on = figures(rows.label, learnt.going_on[net], None, rows.truth)
            found |= {f"going_on_{name}": value for name, value in going_on.items()}
        tuning = learnt.tuning.get(net, np.empty(0))
        if tuning.size:
            label = rows.frame["label"][rows.tuning : rows.tuning + tuning.size].to_numpy()
            found["tuning_auc"] = auc(label, tuning)
        found["train_cpu_s"] = learnt.cpu_s
        model.seeds.append(found)
        model.draws.append(users.auc(p))
        model.cost = cost or model.cost

    def auc_difference(self, name: str, other: str) -> tuple[float, float, float]:
        """Mean difference in AUC between two models, its standard error over seeds, and over users."""
        mine, theirs = self.models[name], self.models[other]
        mean, over_seeds = paired(mine.seeds, theirs.seeds, "auc")
        drawn = np.mean(mine.draws, axis=0) - np.mean(theirs.draws, axis=0)
        return mean, over_seeds, float(np.nanstd(drawn, ddof=1))

    def gap_recovered(self, name: str, figure: str = "auc", *, booster: str = BOOSTER) -> float | None:
        """How much of the way from the model that it is compared with to the booster it goes; None without one."""
        model = self.models[name]
        if booster not in self.models or any(
            figure not in self.models[m].seeds[0] for m in (name, model.against, booster)
        ):
            return None
        whole, _ = paired(self.models[booster].seeds, self.models[model.against].seeds, figure)
        mine, _ = paired(model.seeds, self.models[model.against].seeds, figure)
        return mine / whole if whole else None

    def table(self) -> list[Row]:
        """One row a model: means over seeds, paired differences to its yardstick, costs."""
        return [self._row(model) for model in self.models.values()]

    def by_seed(self) -> list[Row]:
        """One row a model and seed."""
        return [row for model in self.models.values() for row in model.seeds]

    def _row(self, model: Model) -> Row:
        row: Row = {"model": model.name, "seeds": len(model.seeds)}
        for name in _SHOWN:
            if name in model.seeds[0]:
                row[name] = mean_and_error([seed[name] for seed in model.seeds])[0]
        if model.against in self.models and model.against != model.name:
            theirs = self.models[model.against].seeds
            row["against"] = model.against
            row["d_auc"], row["d_auc_se_seeds"], row["d_auc_se_users"] = self.auc_difference(model.name, model.against)
            for name in ("gauc", "logloss", "expected_logloss", "going_on_auc", "going_on_logloss"):
                if name in model.seeds[0] and name in theirs[0]:
                    row[f"d_{name}"], row[f"d_{name}_se"] = paired(model.seeds, theirs, name)
            own = f"{model.name}: booster"  # the yardstick of a light net with other fields is a booster with them
            booster = own if model.against != LIGHT and own in self.models else BOOSTER
            for of, figure in (("", "auc"), ("_going_on", "going_on_auc"), ("_expected_logloss", "expected_logloss")):
                recovered = self.gap_recovered(model.name, figure, booster=booster)
                if recovered is not None or figure != "expected_logloss":
                    row[f"gap_recovered{of}"] = recovered
        if model.cost is not None:
            row["multiplications"], row["cpu_ms_500"] = model.cost
        row["train_cpu_s"] = mean_and_error([seed["train_cpu_s"] for seed in model.seeds])[0]
        return row
