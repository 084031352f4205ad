"""The `train` section of an `app.toml`: how both nets learn, and when the trainer saves itself."""

from typing import Literal

from pydantic import Field, model_validator

from contracts.sections import Section

RowOptimizer = Literal["rowwise_adagrad", "sparse_adam", "sgd"]
WideOptimizer = Literal["rowwise_adagrad", "sparse_adam", "sgd", "ftrl"]


class Checkpoint(Section):
    """When the trainer saves itself, whichever comes first."""

    every_batches: int | None = Field(default=None, ge=1)
    every_s: float | None = Field(default=30, gt=0)
    every_event_min: float | None = Field(default=None, gt=0)
    keep: int = Field(default=3, ge=2)


class Ftrl(Section):
    """FTRL-proximal of the first-order weights, in the paper's figures (a gradient is that of one example)."""

    beta: float = Field(default=0.1, ge=0)  #: keeps the first steps small; alpha is `wide_lr`
    l1: float = Field(default=1.0, ge=0)  #: a weight stays 0 until about the sum of its gradients exceeds it
    l2: float = Field(default=0.3, ge=0)  #: pulls towards 0


class Dense(Section):
    """How the towers (all parameters that are not in a table) move."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = Field(default=0.0, ge=0, lt=1)  #: sgd
    weight_decay: float = Field(default=0.0, ge=0)  #: adamw: of matrices; biases and scales are left alone
    schedule: Literal["constant", "cosine", "linear", "inverse_sqrt"] = "constant"  #: of the rate, after the warm-up
    warmup_rows: int = Field(default=0, ge=0)  #: the rate grows from 0 to `dense_lr` while so many rows are learnt
    decay_rows: int = Field(default=0, ge=0)  #: cosine, linear: the rate falls while so many more rows are learnt
    lr_floor: float = Field(default=0.0, ge=0, le=1)  #: cosine, linear: and stays at that share of `dense_lr`
    #: longest gradient, Euclidean, of one net (light, booster and delay heads each by themselves); None: any
    clip_norm: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _used(self) -> "Dense":
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f'momentum is for optimizer = "sgd", not "{self.optimizer}"; leave it out')
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f'weight_decay is for optimizer = "adamw", not "{self.optimizer}"; take that, or 0')
        if self.schedule in {"cosine", "linear"} and not self.decay_rows:
            raise ValueError(f'schedule = "{self.schedule}" needs decay_rows, the rows over which the rate falls')
        if self.schedule == "inverse_sqrt" and not self.warmup_rows:
            raise ValueError('schedule = "inverse_sqrt" needs warmup_rows, from which on the rate falls; set it')
        return self


class Train(Section):
    """How both nets learn."""

    batch_rows: int = Field(default=256, ge=1, le=65_536)
    seed: int = 1
    embedding_optimizer: RowOptimizer = "rowwise_adagrad"  #: of the tables
    wide_optimizer: WideOptimizer = "rowwise_adagrad"  #: of the first-order weights; ftrl leaves most at exactly 0
    embedding_lr: float = Field(default=0.05, gt=0)
    wide_lr: float = Field(default=0.02, gt=0)
    dense_lr: float = Field(default=0.002, gt=0)
    embedding_init: float = Field(default=0.01, gt=0)
    average_rows: int = Field(default=8192, ge=0)  #: half-life of the averaged towers that are published; 0: none
    accumulator_init: float = Field(default=1e-12, gt=0)  #: rowwise_adagrad
    ftrl: Ftrl = Ftrl()
    dense: Dense = Dense()
    #: a minibatch whose loss or gradient is not finite moves nothing in either case; skip: it is counted, and training
    #: goes on, since one bad event must not stop a stream, nor stop it again at each restart; stop: training ends there
    not_finite: Literal["skip", "stop"] = "skip"
    max_skipped: int = Field(default=8, ge=1)  #: minibatches skipped in a row before training ends after all
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    threads: int = Field(default=1, ge=1)
    linear: bool = True  #: train the hashed logistic regression yardstick beside
    linear_lr: float = Field(default=0.1, gt=0)  #: alpha of its FTRL
    checkpoint: Checkpoint = Checkpoint()
