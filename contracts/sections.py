"""The sections of an `app.toml` beside its feature table: each a frozen model with its defaults and units."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, model_validator

from contracts.errors import did_you_mean

ModelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]  # stands in Redis keys


class Section(BaseModel):
    """A frozen part of the app; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Ingest(Section):
    """How events are read."""

    disorder_s: float = Field(default=60, ge=0)  #: an event further behind its own file or partition is late
    event_time_min: AwareDatetime  #: earlier event times are dead letters
    event_time_max: AwareDatetime  #: later ones too: they move no watermark
    max_event_bytes: int = Field(default=1_048_576, ge=64)
    shards: int = Field(default=4, ge=1, le=1024)
    chunk_rows: int = Field(default=16_384, ge=1)
    segment_rows: int = Field(default=4096, ge=1, le=4096)

    @model_validator(mode="after")
    def _ascending(self) -> "Ingest":
        if self.event_time_min >= self.event_time_max:
            raise ValueError("event_time_min must lie before event_time_max; swap them")
        return self

    @property
    def event_times_ms(self) -> tuple[int, int]:
        """The earliest and the latest plausible event time, epoch milliseconds."""
        return round(self.event_time_min.timestamp() * 1000), round(self.event_time_max.timestamp() * 1000)


class Live(Section):
    """How topics are followed: none of these changes a row, only when it comes."""

    linger_s: float = Field(default=0.1, ge=0)  #: a chunk is kept open that long, unless the reader is behind
    poll_s: float = Field(default=0.05, gt=0)  #: between two looks at the topics
    bundle_chunks: int = Field(default=8, ge=1)  #: read at most before the runner takes over
    bundle_s: float = Field(default=0.3, gt=0)  #: and at most that long
    slot_s: float = Field(default=0.5, gt=0)  #: events settle whenever event time passes a multiple of it
    backlog_rows: int = Field(
        default=4096, ge=0
    )  #: that about so many settle at once of what waits at the start; 0: by slots
    idle_s: float = Field(default=2, gt=0)  #: a partition read to its end and quiet that long holds nothing back
    outage_s: float = Field(default=10, gt=0)  #: but after the broker was away so long, for writers to come back
    max_lead_s: float = Field(default=120, gt=0)  #: of a partition over the slowest, and of reading over the log
    position_every_s: float = Field(default=5, gt=0)  #: between two positions to resume from
    gone: Literal["stop", "earliest"] = "stop"  #: where the offset to resume from is no longer in the topic


class Kafka(Section):
    """How brokers are spoken to; secrets come from the environment (`ROCKET_KAFKA__SASL_PASSWORD`)."""

    #: that scorers read requests and write answers with; librdkafka takes a third of the time, and the extra `fast`
    client: Literal["kafka-python", "librdkafka"] = "kafka-python"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ca_file: str | None = None  #: PEM of who signs the brokers' certificates; None: those of this machine
    cert_file: str | None = None  #: PEM of this client's certificate
    key_file: str | None = None  #: PEM of its key
    connect_timeout_s: float = Field(default=5, gt=0)  #: until the first broker answers, at the start of a command
    request_timeout_s: float = Field(default=30, gt=0)
    max_message_bytes: int = Field(default=8_388_608, ge=1024)  #: of what is written


class Flink(Section):
    """How a Flink cluster runs the flows; none of these changes a row."""

    version: str = "1.19"  #: of Flink, as the job server of Beam names it
    job_server: str = "2.62.0"  #: version of Beam's job server for it
    parallelism: int = Field(default=1, ge=1)
    checkpoint_s: float = Field(default=1, gt=0)  #: between two checkpoints
    restarts: int = Field(default=3, ge=0)  #: from the last checkpoint, before a job fails
    restart_delay_s: float = Field(default=0.5, ge=0)


class Labels(Section):
    """How impressions get their label."""

    #: wait: one row an impression, once its wait is over. The others tell the log sooner, and correct a negative whose
    #: click comes after all: fake_negative (FNW) and fnc at once, es_dfm and dfm after `observe_s`
    mode: Literal["wait", "fake_negative", "fnc", "es_dfm", "dfm"] = "wait"
    wait_s: float = Field(default=600, gt=0)  #: an impression waits that long, in event time, for its click
    observe_s: float = Field(default=60, ge=0)  #: es_dfm, dfm: how long it is watched before the log is told of it
    dedupe_s: float = Field(default=3600, ge=0)  #: the same impression id within that span is a duplicate

    @model_validator(mode="after")
    def _observed_before_the_end(self) -> "Labels":
        if self.mode in {"es_dfm", "dfm"} and self.observe_s >= self.wait_s:
            raise ValueError(
                f"observe_s ({self.observe_s:g}) must be shorter than wait_s ({self.wait_s:g}) with mode "
                f'"{self.mode}"; shorten it, or use mode = "wait"'
            )
        return self

    @property
    def first_row_s(self) -> float:
        """Seconds of event time from an impression until the log is first told of it."""
        return {"wait": self.wait_s, "fake_negative": 0.0, "fnc": 0.0}.get(self.mode, self.observe_s)

    @property
    def link(self) -> Literal["sigmoid", "odds"]:
        """How a logit becomes a click probability: `odds` is exp(logit), at most 1 (`fnc`)."""
        return "odds" if self.mode == "fnc" else "sigmoid"


class Sampling(Section):
    """Negative down-sampling, repeatable by hash of the impression id, and its calibration."""

    negative_keep_rate: float = Field(default=1.0, gt=0, le=1)
    #: exactly one of the two. weight: kept negatives weigh 1 / rate; logit: - ln(rate) on every logit in training
    correction: Literal["weight", "logit"] = "weight"


class Gate(Section):
    """What a candidate must show on rows that neither it nor the live version has learnt."""

    window_rows: int = Field(default=2048, ge=1)
    max_logloss_increase: float = Field(default=0.02, ge=0)  #: relative to the live version
    calibration: tuple[float, float] = (0.7, 1.4)  #: predicted / observed must lie between
    max_live_ne: float = Field(default=1.2, gt=0)  #: a live version worse than that (1: a constant) finds labels wrong
    max_label_shift: float = Field(
        default=1.0, gt=0
    )  #: of the label rate against that of the windows before, in logits
    max_prior_shift: float = Field(
        default=2.5, gt=0
    )  #: the same against `serving.prior_ctr`, while nothing came before
    frozen_share: float = Field(default=0.98, gt=0.5, le=1)  #: a feature is frozen where one value has that share
    max_missing_rise: float = Field(default=0.25, gt=0)  #: of the share of rows that lack a feature
    distrust_windows: int = Field(default=4, ge=1)  #: believed ones that must follow one that is not, before a version
    max_norm_growth: float = Field(default=10.0, gt=1)  #: of an array's root mean square, against the live version
    canary: Path | None = None  #: requests, as `rocket score` reads them, that are always scored; None: newest examples
    canary_rows: int = Field(default=1024, ge=1)  #: of those newest examples, or of the candidates in that file
    max_score_shift: float = Field(default=1.5, gt=0)  #: mean |difference| of logits to the live version, canary set
    max_score_psi: float = Field(default=1.0, gt=0)  #: population stability index of the scores, likewise
    min_rank_correlation: float = Field(default=0.5, ge=-1, le=1)  #: Spearman's, with the live version's scores
    min_score_spread: float = Field(default=0.1, ge=0)  #: standard deviation of logits, relative to the live version's
    max_saturated: float = Field(default=0.01, ge=0, le=1)  #: share of scores within a millionth of 0 or 1

    @model_validator(mode="after")
    def _ascending(self) -> "Gate":
        if not 0 <= self.calibration[0] < self.calibration[1]:
            raise ValueError("calibration is [low, high] with 0 <= low < high, such as [0.7, 1.4]")
        return self


class Publish(Section):
    """When and how light weights go to Redis."""

    every_rows: int = Field(default=32_768, ge=1)
    every_s: float | None = Field(default=None, gt=0)  #: live: a candidate at least that often, by the clock
    dtype: Literal["fp16", "fp32"] = "fp16"
    keep: int = Field(default=5, ge=1)  #: versions kept for rollback
    ttl_s: int = Field(default=86_400, ge=1)  #: of older ones
    chunk_bytes: int = Field(default=4_194_304, ge=1024)
    deltas: bool = True  #: publish what differs from the live version, where that is less than all
    full_every: int = Field(default=16, ge=1, le=1000)  #: so many deltas at most follow a full version
    max_delta_share: float = Field(
        default=0.3, gt=0, le=1
    )  #: of the tables' rows; where more differ, all are published
    #: versions are signed with it, and scorers refuse others; from the environment (`ROCKET_PUBLISH__KEY`)
    key: SecretStr | None = Field(default=None, min_length=16)
    rollback_hold_s: float = Field(default=600, ge=0)  #: a trainer publishes nothing for so long after a rollback
    gate: Gate = Gate()


class Serving(Section):
    """How requests are answered."""

    prior_ctr: float = Field(default=0.05, gt=0, lt=1)
    max_age_s: float = Field(default=3600, gt=0)  #: an older version answers as "stale"
    max_candidates: int = Field(default=1000, ge=1)
    max_request_bytes: int = Field(default=1_048_576, ge=64)
    tmax_ms: int = Field(default=50, ge=1)  #: when the request names none
    remember_candidates: int = Field(default=32_768, ge=0)  #: whose bytes came before; 0 none, some 0.5 KB each
    reply_topics: tuple[str, ...] = ()  #: beside the response topic, those that a request may ask its answer to
    shed: bool = True  #: what cannot be scored before its deadline is answered at once, unscored ("overloaded")
    slow_ms: float = Field(default=250, gt=0)  #: an answer that took longer is logged, at most one line a second
    models: tuple[ModelName, ...] = ()  #: that are served; none: the one with the app's name
    traffic: dict[str, float] = {}  #: model -> percent of the users it answers; together 100
    shadows: tuple[str, ...] = ()  #: models whose scores are logged with the snapshots, never returned
    salt: str = "1"  #: another one deals the users out anew

    @model_validator(mode="after")
    def _split(self) -> "Serving":
        for name in [*self.traffic, *self.shadows]:
            if name not in self.models:
                raise ValueError(f"there is no model '{name}'; {did_you_mean(name, self.models or ['none in models'])}")
        if len({*self.models}) < len(self.models):
            raise ValueError("models names one twice; leave one")
        if both := sorted(self.traffic.keys() & set(self.shadows)):
            raise ValueError(f"model '{both[0]}' has traffic and is a shadow; it can be one of the two")
        if idle := [name for name in self.models if name not in self.traffic and name not in self.shadows]:
            raise ValueError(f"model '{idle[0]}' has neither traffic nor is it a shadow; give it one, or leave it out")
        if self.models and (min(self.traffic.values(), default=0) <= 0 or abs(sum(self.traffic.values()) - 100) > 1e-6):
            raise ValueError(f"traffic must be shares above 0 that sum to 100, not {sum(self.traffic.values()):g}")
        return self


class Evaluate(Section):
    """What the report breaks figures down by."""

    segments: tuple[str, ...] = ()  #: contract columns
    calibration_bins: int = Field(default=20, ge=2)
