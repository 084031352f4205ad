"""The sections of an `app.toml` that say what the nets are, and what the light one learns from the other."""

from typing import Annotated, Literal

from pydantic import Field

from contracts.sections import Section

Width = Annotated[int, Field(ge=1, le=65_536)]  # of a hidden layer
Place = Annotated[int, Field(ge=0)]  # of a hidden layer, from the input on
Activation = Literal["relu", "gelu", "silu", "prelu", "dice"]
Norm = Literal["none", "batch", "layer"]
#: How the nets are trained together; `contracts.schemes` says what each asks for, `model.schemes` what each does.
Scheme = Literal["rocket", "offline", "born_again", "mutual", "one", "own_teacher", "net_aug", "rocket_kd"]


class Light(Section):
    """The net that serves."""

    deep: bool = True  #: the MLP; false leaves the wide term and `fm`
    hidden: tuple[Width, ...] = (64, 32)  #: of the MLP; none: a linear layer over the embeddings
    wide: bool = True  #: a first-order term
    fm: bool = False  #: a second-order term: the inner products of all pairs of embeddings (Rendle, ICDM 2010)
    activation: Activation = "relu"  #: of the hidden layers; gelu is its tanh form; dice is refused
    norm: Norm = "none"  #: before each activation; batch is refused

    @property
    def layers(self) -> tuple[int, ...]:
        """Widths of its hidden layers, without any where there is no MLP."""
        return self.hidden if self.deep else ()


class Booster(Section):
    """The net that teaches."""

    kind: str = "dcn_v2"  #: a file in model/boosters; "none" trains the light net alone
    hidden: tuple[Width, ...] = (256, 128, 64)
    activation: Activation = "relu"  #: of the hidden layers; dice is DIN's
    norm: Norm = "none"  #: before each activation
    dropout: float = Field(default=0.0, ge=0, lt=1)  #: after each activation
    pooling: Literal["mean", "attention"] = "mean"  #: of sequences
    cross_layers: int = Field(default=2, ge=0)  #: dcn_v2
    cross_rank: int = Field(default=32, ge=0)  #: dcn_v2; 0: whole matrices
    cross_experts: int = Field(default=1, ge=1)  #: dcn_v2: low-rank experts a layer, weighed by a gate
    cross_stacked: bool = False  #: dcn_v2: the deep layers after the crosses, not beside them
    attention_layers: int = Field(default=3, ge=1)  #: autoint
    attention_heads: int = Field(default=2, ge=1)  #: autoint; finalmlp: of its fusion
    attention_width: int = Field(default=16, ge=1)  #: autoint: of a head
    squeeze_ratio: int = Field(default=3, ge=1)  #: fibinet: how much narrower the squeeze is
    bilinear: Literal["all", "each", "interaction"] = "interaction"  #: fibinet: one matrix, one a field, one a pair
    mask_blocks: int = Field(default=3, ge=1)  #: masknet
    mask_parallel: bool = True  #: masknet: blocks side by side, or one after another
    mask_ratio: float = Field(default=2.0, gt=0)  #: masknet: width of a mask's hidden layer, in block widths


class Model(Section):
    """Both nets and what they share."""

    embedding_dim: int = Field(default=8, ge=1)
    sharing: Literal["shared", "separate"] = "shared"  #: of the embedding tables
    #: what both nets share: "trunk" adds the light net's lowest layers, whose output the booster sees beside its fields
    share: Literal["embeddings", "trunk"] = "embeddings"
    trunk_layers: int = Field(default=1, ge=1)  #: hidden layers of the light net that are the trunk
    light: Light = Light()
    booster: Booster = Booster()


class Rocket(Section):
    """The co-training loss (Rocket Launching, AAAI 2018)."""

    scheme: Scheme = "rocket"  #: which nets there are beside the light one, and who follows whom
    hint: str = "logit_mse"  #: between the logits: a name of model.hints
    hint_weight: float = Field(default=1.0, ge=0)  #: lambda; net_aug: of the widened net's label loss
    feature_hint: str = "none"  #: between hidden layers, or gradients by the embeddings: a name of model.hints
    feature_weight: float = Field(default=1.0, ge=0)  #: its lambda
    #: [light layer, booster layer], each counted from 0; the costs of the pairs are averaged; fsp: of each two of them
    feature_layers: tuple[tuple[Place, Place], ...] = ()
    hint_temperature: float = Field(default=4.0, gt=0)  #: T of bernoulli_kd
    #: of activation_boundaries (None: 1), and of bounded_click in nats (None: 0)
    hint_margin: float | None = Field(default=None, ge=0)
    #: hints that compare rows with each other take so many of a minibatch, evenly spread: they cost its square
    relation_rows: int = Field(default=64, ge=2, le=4096)
    factor_rows: int = Field(default=16_384, ge=0)  #: factor_transfer: rows that its paraphraser learns from, first
    schedule: Literal["constant", "warmup", "ramp"] = "constant"  #: of both lambdas, by rows that the booster learnt
    warmup_rows: int = Field(default=0, ge=0)  #: warmup, ramp: both are 0 until then
    ramp_rows: int = Field(default=0, ge=0)  #: ramp: rows from there until both are whole
    decay_after_rows: int = Field(default=0, ge=0)  #: where both begin to fade
    decay_rows: int = Field(default=0, ge=0)  #: rows of a half cosine from whole to 0; 0: they never fade
    gate: bool = True  #: hints on only while the booster's running logloss leads; of rocket, rocket_kd and offline
    gate_lead: float = Field(default=0.0, ge=0)  #: nats by which it must lead: a booster that knows no more only harms
    gate_halflife_rows: int = Field(default=8192, ge=1)
    gradient_block: bool = True  #: the booster is spared the hints' gradient; never in mutual
    light_updates_shared: bool = True  #: the light net's loss moves what both share (the paper); false: detached
    #: offline, rocket_kd, born_again: folder of another run of this app (or of its checkpoints); its newest one teaches
    teacher: str | None = None
    teacher_weight: float = Field(default=1.0, ge=0)  #: rocket_kd: of the teacher's term, bernoulli_kd
    generation_rows: int = Field(default=65_536, ge=1)  #: born_again: after so many the light net is the next teacher
    branches: int = Field(default=2, ge=1, le=64)  #: one: beside the light net
    exit_share: float = Field(default=0.3, ge=0, le=1)  #: own_teacher: of an exit's loss, what it takes from the net
    exit_feature_weight: float = Field(default=0.03, ge=0)  #: own_teacher: of the squared distance of hidden layers
    widen: int = Field(default=2, ge=1, le=64)  #: net_aug: at most so many columns are added to each of the light net
    watch_every: int = Field(default=256, ge=0)  #: minibatches between two looks at each term's gradient; 0: none
