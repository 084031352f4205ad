"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016, arXiv 1605.07146), two of which may share convolutions.

As in Rocket Launching (Zhou et al., AAAI 2018, arXiv 1708.04106, figure 3) the light net runs through convolutions of
the booster, while each net keeps its own normalisation: weights fit both, batch statistics do not.

    interval   the first blocks of every group are shared; the light net lacks the rest of each group
    bottom     the first two groups are shared, whole; the light net lacks the third

Shapes: B images, K channels, H x W pixels, C classes.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.errors import ContractError

Structure = Literal["interval", "bottom"]


@dataclass(frozen=True, slots=True)
class WrnSize:
    """WRN-depth-width for given images.

    Raises:
        ContractError: a depth that gives no whole number of blocks.

    >>> WrnSize(16, 1, channels=3, classes=10).blocks
    2
    """

    depth: int  #: 6 n + 4: a stem, three groups of n blocks of two convolutions, widening ones and the head
    width: float  #: the groups have 16, 32 and 64 times as many channels
    channels: int  #: K of the images
    classes: int  #: C
    groups: int = 3  #: 2 leaves out the third
    dropout: float = 0.0  #: within blocks, between the convolutions

    def __post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise ContractError(f"a wide residual net of depth {self.depth}: it must be 10, 16, 22 and so on (6 n + 4)")

    @property
    def blocks(self) -> int:
        """n, blocks a group."""
        return (self.depth - 4) // 6

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels that each group gives."""
        return tuple(max(1, round(base * self.width)) for base in (16, 32, 64)[: self.groups])


class Seen(NamedTuple):
    """What a net makes of images."""

    logit_BC: Tensor
    maps: tuple[Tensor, ...]  #: of each group, [B, channels, h, w]


class BlockConvs(nn.Module):
    """The weights of a block that two nets may share."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inputs, outputs, 3, stride)
        self.second = _conv(outputs, outputs, 3, 1)
        self.widen = _conv(inputs, outputs, 1, stride) if inputs != outputs or stride != 1 else None


class Block(nn.Module):
    """Normalise, ReLU, convolve, twice, beside a way past; pre-activation, as in the paper.

    Args:
        convs: the net's own, or another net's.
        dropout: between the two convolutions.
    """

    def __init__(self, convs: BlockConvs, dropout: float) -> None:
        super().__init__()
        self.convs = convs
        self.before_first = nn.BatchNorm2d(convs.first.in_channels)
        self.before_second = nn.BatchNorm2d(convs.second.in_channels)
        self.dropout = nn.Dropout(dropout) if dropout else None

    def forward(self, x_BKHW: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        seen = F.relu(self.before_first(x_BKHW))
        within = F.relu(self.before_second(self.convs.first(seen)))
        if self.dropout is not None:
            within = self.dropout(within)
        past: Tensor = x_BKHW if self.convs.widen is None else self.convs.widen(seen)
        seen_twice: Tensor = self.convs.second(within)
        return past + seen_twice


class WideResNet(nn.Module):
    """Stem, groups of blocks, normalisation, mean over pixels, linear head.

    Args:
        size: its shape.
        shares: a net of the same widths, at least as deep, whose stem and blocks stand in for one's own at the same
            places. Normalisation and head are always one's own.

    Raises:
        ContractError: the net to share with lacks a block that this one has.

    Example::

        >>> booster = WideResNet(WrnSize(16, 0.25, channels=1, classes=10))
        >>> light = light_beside(booster, 10, "interval", shared=True)
        >>> light(torch.zeros(2, 1, 8, 8)).logit_BC.shape
        torch.Size([2, 10])
        >>> light.stem is booster.stem, light.head is booster.head
        (True, False)
    """

    def __init__(self, size: WrnSize, shares: "WideResNet | None" = None) -> None:
        super().__init__()
        if shares is not None:
            _check_sharing(size, shares.size)
        self.size: WrnSize = size
        stem_width = max(1, round(16 * size.width)) if size.width < 1 else 16
        self.stem: nn.Conv2d = _conv(size.channels, stem_width, 3, 1) if shares is None else shares.stem
        groups, inputs = [], stem_width
        for number, outputs in enumerate(size.widths):
            blocks = []
            for place in range(size.blocks):
                stride = 2 if number and not place else 1
                convs = BlockConvs(inputs, outputs, stride) if shares is None else shares.block(number, place).convs
                blocks.append(Block(convs, size.dropout))
                inputs = outputs
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.ModuleList(groups)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, size.classes)
        nn.init.kaiming_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def block(self, group: int, place: int) -> Block:
        """The block at a place, counted from 0."""
        found = self.groups[group]
        assert isinstance(found, nn.Sequential)  # noqa: S101  # as made above
        block = found[place]
        assert isinstance(block, Block)  # noqa: S101
        return block

    def forward(self, x_BKHW: Tensor) -> Seen:
        """[B, K, H, W] to logits and the groups' maps."""
        x, maps = self.stem(x_BKHW), []
        for group in self.groups:
            x = group(x)
            maps.append(x)
        pooled_BK = F.relu(self.norm(x)).mean((2, 3))
        return Seen(self.head(pooled_BK), tuple(maps))


def light_size(booster: WrnSize, depth: int, structure: Structure) -> WrnSize:
    """The light net that goes with a booster: shallower groups, or one group less (`depth` is then the booster's).

    >>> light_size(WrnSize(40, 1, channels=3, classes=10), 16, "bottom").blocks
    6
    """
    if structure == "interval":
        return replace(booster, depth=depth, dropout=0.0)
    return replace(booster, groups=2, dropout=0.0)


def light_beside(booster: WideResNet, depth: int, structure: Structure, *, shared: bool) -> WideResNet:
    """A light net of that structure, through the booster's convolutions if `shared`.

    Raises:
        ContractError: it would be deeper than the booster that it shares with.
    """
    return WideResNet(light_size(booster.size, depth, structure), shares=booster if shared else None)


def multiplications(net: WideResNet, height: int, width: int) -> int:
    """How many multiplications one image of that many pixels costs, in convolutions and head.

    >>> multiplications(WideResNet(WrnSize(10, 1, channels=1, classes=10)), 1, 1)  # at one pixel: one a weight
    77072
    """
    counted: list[int] = []

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)  # noqa: S101  # none else is hooked
        counted.append(output[0].numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    was_training = net.training
    net.eval()
    with torch.no_grad():
        net(next(net.parameters()).new_zeros(1, net.size.channels, height, width))
    net.train(was_training)
    for hook in hooks:
        hook.remove()
    return sum(counted) + net.head.weight.numel()


def _conv(inputs: int, outputs: int, pixels: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, pixels, stride, padding=pixels // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv


def _check_sharing(size: WrnSize, theirs: WrnSize) -> None:
    alike = (size.width, size.channels) == (theirs.width, theirs.channels)
    if not alike or size.depth > theirs.depth or size.groups > theirs.groups:
        raise ContractError(
            f"WRN-{size.depth}-{size.width:g} cannot share the convolutions of WRN-{theirs.depth}-{theirs.width:g}: it "
            "must be as wide, see the same channels and be no deeper; choose another depth or train them unshared"
        )
