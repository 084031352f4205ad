"""Co-training, one minibatch at a time: predict first, then learn. All that steers it is in its state (law 3)."""

import math
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import polars as pl
import torch
from torch import Tensor

from contracts.app import App
from contracts.errors import ContractError, CorruptError
from model.averaging import DecayingAverage
from model.delayed import Seen, mode_of
from model.dynamic_ids import DynamicIds
from model.embeddings import Table, Touched
from model.following import Following
from model.guard import Guard
from model.hints import hint_of
from model.lifecycle import fitted
from model.losses import Terms, both_ways, rocket_loss
from model.memory import keep_freed_memory
from model.optimizers.flat import FlatOptimizer
from model.precision import denormals_flushed, pick_device, use_bf16
from model.predictions import Predictions, joined, predictions_of
from model.randomness import Randomness
from model.rocket import RocketNets
from model.schedule import HintGate
from model.state import part_of
from model.tensors import Batch, to_batch
from model.trained_with import check_fits, optimizers_of
from model.watch import Watch

_PREDICT_ROWS = 16_384  # bounds the memory of `predict`, whatever it is asked


class Trainer:
    """The light net and the booster, learning together.

    Sets torch's thread count for the process (`train.threads`), and lets it keep memory that is freed.

    Args:
        app: layout and settings.
        seed: in place of `train.seed`.

    Raises:
        ContractError: an unknown booster, hint or device.
    """

    def __init__(self, app: App, *, seed: int | None = None) -> None:
        config = app.config
        self.app = app
        self.seed = config.train.seed if seed is None else seed
        self.step = 0
        self.rows_learnt = 0
        self.taken_step = 0  #: when moved rows were taken last; not in the state: after a restore all may have moved
        torch.set_num_threads(config.train.threads)
        keep_freed_memory()
        self.device = pick_device(config.train.device)
        self._mutual = config.rocket.scheme == "mutual"
        self._hint = both_ways(hint_of(config.rocket)) if self._mutual else hint_of(config.rocket)
        self._mode, self._link = mode_of(config.labels), config.labels.link
        self._observed = config.labels.first_row_s / config.labels.wait_s
        self.nets = RocketNets(app, seed=self.seed, device=self.device)
        self.ids = DynamicIds(app.layout, self.nets.tables)  #: whose row is whose, where ids own their rows
        self._following = Following(app, self.nets)
        train, nets = config.train, self.nets.nets.values()
        self._dense, self.guard = FlatOptimizer(nets, lr=train.dense_lr, settings=train.dense), Guard(train, nets)
        halflife = config.train.average_rows
        self.averages = {name: DecayingAverage(net, halflife) for name, net in self.nets.nets.items()}
        self.bf16 = use_bf16(config.train, self.nets.booster, self.device)
        own = ":" in config.model.booster.kind or self.nets.draws
        self._randomness = Randomness(self.nets.nets.values(), own=own, device=self.device)
        self._gate = HintGate(config.rocket)
        self.watch = Watch(self.nets, config.rocket.watch_every)  #: figures of the terms; they steer nothing

    @property
    def gate_open(self) -> bool:
        """Whether the booster's running logloss is below the light's by `rocket.gate_lead`, decayed by rows."""
        return self.nets.taught and self._gate.open

    @property
    def hint_weight(self) -> float:
        """Lambda for the next minibatch: 0 while the gate is shut, else as `rocket.schedule` says."""
        return self.app.config.rocket.hint_weight * self._strength()

    def _strength(self) -> float:
        return self._gate.strength(self.rows_learnt) * self.nets.scheme.strength() if self.nets.follows else 0.0

    def learn(self, rows: pl.DataFrame | Batch) -> Predictions:
        """Predict some rows, then learn them as one minibatch.

        Args:
            rows: one minibatch, cut by the caller (`train.batch_rows`); a `Batch` (`to_batch` a segment, then `slice`)
                is cheaper than a frame.

        Returns:
            Predictions made before learning (progressive validation), and the loss terms. `skipped` where something
            was not finite (`train.not_finite`): then only `step` and the guard's counts have moved.

        Raises:
            ContractError: no rows; or what is not finite is to stop training, or came too often in a row.
        """
        batch = rows if isinstance(rows, Batch) else to_batch(rows, self.app)
        if not batch.rows:
            raise ContractError("a minibatch has no rows; cut minibatches of train.batch_rows rows")
        if not self.step:
            self.nets.scheme.begin(self)
        batch = self.ids.learn(batch, self.seed).to(self.device)
        with self._randomness.at(self.seed, self.step), denormals_flushed():
            return self._learn(batch)

    def _learn(self, batch: Batch) -> Predictions:
        self._dense.clear()
        weight, saved, learnt_before = self.hint_weight, self.guard.before(), self.rows_learnt
        judged = self.nets.learn(batch, self._autocast(), hidden=self._following.asks_hidden)
        rows = self._seen(batch, judged.heads_BK)
        mode = self._mode
        terms = rocket_loss(
            judged.light_B,
            judged.booster_B,
            batch.label_B,
            batch.weight_B,
            batch.logit_shift_B,
            hint=lambda light_B, booster_B: self._hint(light_B, booster_B, batch.label_B),
            hint_weight=weight,
            gradient_block=self.app.config.rocket.gradient_block and not self._mutual,
            row_loss=None if mode is None else lambda logit_B, net: mode.loss(logit_B, rows, net),
            features=self._following.features(batch, judged, self._strength()),
            scheme=lambda costs: self.nets.scheme.terms(judged.light_B, judged.light_layers, judged.said, costs),
        )
        total = terms.total
        figures_of_heads: dict[str, float] = {}
        if mode is not None and mode.head_loss is not None:
            of_heads = (mode.head_loss(rows) * batch.weight_B).mean()
            total = total + of_heads
            figures_of_heads = {"loss_delay": float(of_heads.detach())}
        seen = self.watch.look(terms.parts, judged) if self.watch.due(self.step) else {}
        total.backward()  # type: ignore[no-untyped-call]
        norms = self._dense.gradient_norms()
        figures = self._figures(terms, weight, norms) | figures_of_heads
        if learnt := self._move(judged.touched, (*figures.values(), *norms), batch.rows):
            self.nets.observe(batch)
            self.nets.scheme.learnt(self)
            self._gate.move(figures["loss_light"], figures.get("loss_booster", 0.0), batch.rows)
            if seen:
                self.watch.keep({"rows": learnt_before, "booster_lead": self._gate.lead, **figures, **seen})
            self.guard.passed()
        else:
            self.guard.skip(saved, figures, step=self.step, rows=batch.rows)
        self.step += 1
        return predictions_of(judged.light_B, judged.booster_B, figures, self._link)._replace(skipped=not learnt)

    def _move(self, touched: tuple[tuple[Table, Touched], ...], figures: tuple[float, ...], rows: int) -> bool:
        """Move tables, towers and their averages by the gradients; nothing of it where a number is not finite."""
        if not (all(map(math.isfinite, figures)) and all(table.prepare(some, rows=rows) for table, some in touched)):
            return False
        for table, some in touched:
            table.commit(some)
        self._dense.clip(figures[-len(self.nets.nets) :])
        self.rows_learnt += rows
        self._dense.step(self.rows_learnt)
        for average in self.averages.values():
            average.update(rows)
        return True

    def _seen(self, batch: Batch, heads_BK: Tensor | None) -> Seen:
        return Seen(batch.label_B, batch.role_B, batch.elapsed_B, self._observed, heads_BK)

    def predict(self, rows: pl.DataFrame | Batch, *, averaged: bool = False) -> Predictions:
        """Probabilities of some rows, any number of them, without learning; float32, no dropout.

        Args:
            rows: as for `learn`.
            averaged: with the averaged towers, as they are published, in place of the newest.
        """
        with ExitStack() as stack:
            stack.enter_context(denormals_flushed())
            for average in self.averages.values() if averaged else ():
                stack.enter_context(average.applied())
            return self._predict(rows)

    def _predict(self, rows: pl.DataFrame | Batch) -> Predictions:
        whole = rows if isinstance(rows, Batch) else to_batch(rows, self.app)
        for net in self.nets.nets.values():
            net.eval()
        parts = []
        for start in range(0, max(whole.rows, 1), _PREDICT_ROWS):
            some = self.ids.look_up(whole.slice(start, start + _PREDICT_ROWS))
            judged = self.nets.predict(some.to(self.device))
            parts.append(predictions_of(judged.light_B, judged.booster_B, {}, self._link))
        for net in self.nets.nets.values():
            net.train()
        return joined(parts)

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors that steer training, on the CPU.

        `model.` names are the nets' (light, booster, tables), `optimizer.` names the accumulators and moments.
        """
        state: dict[str, Tensor] = {}
        for name, table in self.nets.tables.items():
            state |= {f"model.table.{name}.{part}": tensor for part, tensor in table.weights().items()}
            state |= {f"optimizer.table.{name}.{part}": tensor for part, tensor in table.accumulators().items()}
        for name, net in self.nets.nets.items():
            state |= {f"model.{name}.{key}": tensor.clone() for key, tensor in net.state_dict().items()}
        for name, average in self.averages.items():
            state |= {f"model.average.{name}.{key}": tensor for key, tensor in average.state().items()}
        state |= {f"optimizer.dense.{key}": tensor for key, tensor in self._dense.state().items()}
        state |= self.ids.state()
        return {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}

    def meta(self) -> dict[str, Any]:
        """What else steers training, ready for JSON (numbers survive it exactly)."""
        return {
            "format": 1,
            "schema_id": self.app.schema_id,
            "seed": self.seed,
            "step": self.step,
            "rows_learnt": self.rows_learnt,
            "bf16": self.bf16,
            "label_mode": self.app.config.labels.mode,
            "scheme": self.app.config.rocket.scheme,
            "booster": {"kind": self.app.config.model.booster.kind, "since_rows": self._gate.since_rows},
            "running_logloss": self._gate.meta(),
            "watch": self.watch.meta(),
            "optimizers": optimizers_of(self.app),
            "skipped": self.guard.meta(),
        }

    def restore(self, state: dict[str, Tensor], meta: dict[str, Any], *, new_booster: bool = False) -> None:
        """Go on exactly where another trainer of the same app stood when it gave `state` and `meta`.

        Args:
            state: of that trainer.
            meta: of that trainer.
            new_booster: where its booster was another one, keep all but the booster (`model.lifecycle`).

        Raises:
            ContractError: the state is of nets of other shapes, or of another booster.
            CorruptError: `meta` lacks what it must hold.
        """
        state, meta = fitted(self, state, meta, new_booster=new_booster)
        check_fits(self.app, self.state(), state, meta)
        try:
            seed, step, rows = int(meta["seed"]), int(meta["step"]), int(meta["rows_learnt"])
            self._gate.restore(meta)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(f"the checkpoint's metadata lacks what steers training ({error!r})") from error
        self.ids.load(state)
        for name, table in self.nets.tables.items():
            table.load(part_of(state, f"model.table.{name}"), part_of(state, f"optimizer.table.{name}"))
        for name, net in self.nets.nets.items():
            net.load_state_dict(part_of(state, f"model.{name}"))
        for name, average in self.averages.items():
            learnt = rows - self._gate.since_rows if name == "booster" else rows
            average.load(part_of(state, f"model.average.{name}"), learnt)
        self._dense.load(part_of(state, "optimizer.dense"))
        self.seed, self.step, self.rows_learnt = seed, step, rows
        self.watch.restore(meta.get("watch", {}))
        self.guard.restore(meta.get("skipped", {}))
        if self.app.config.train.precision == "auto":  # what "auto" once chose stays, on whatever machine it goes on
            self.bf16 = bool(meta.get("bf16", self.bf16))

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _figures(self, terms: Terms, weight: float, of_nets: list[float]) -> dict[str, float]:
        norms = dict(zip(self.nets.nets, of_nets, strict=True))
        figures = {"loss_light": float(terms.light), "grad_norm_light": norms["light"]}
        if terms.booster is not None and terms.hint is not None:
            figures |= {
                "loss_booster": float(terms.booster),
                "hint": float(terms.hint),
                "hint_weight": weight,
                "grad_norm_booster": norms.get("booster", 0.0),
            }
        if terms.feature is not None:
            figures["feature"] = float(terms.feature)
        if terms.scheme is not None:
            figures["scheme"] = float(terms.scheme)
        return figures
