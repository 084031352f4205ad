"""Blocks that nets are made of. Shapes: B rows, I inputs, D embedding width, L positions of a sequence."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from contracts.nets import Activation
from model.activations import activation
from model.tensors import Ragged


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with He's uniform start for ReLU (PyTorch's own default is half as wide)."""
    layer = nn.Linear(inputs, outputs)
    if inputs:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True, slots=True)
class Hidden:
    """What follows each hidden layer."""

    activation: Activation = "relu"
    norm: Literal["none", "batch", "layer"] = "none"
    dropout: float = 0.0

    def after(self, width: int) -> nn.Module:
        """Norm, activation, dropout of a layer of H = `width` columns."""
        norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        parts = [norms[self.norm](width)] if self.norm in norms else []
        parts.append(activation(self.activation, width))
        if self.dropout:
            parts.append(nn.Dropout(self.dropout))
        return nn.Sequential(*parts)


class LogitHead(nn.Linear):
    """The last layer: one output, in float32 even under autocast (bf16 would round a logit of -3 to steps of .016)."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] to [..., 1]."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def logit_head(inputs: int) -> LogitHead:
    """A last layer that starts near 0, so that a new net first predicts its prior."""
    layer = LogitHead(inputs, 1)
    if inputs:
        nn.init.uniform_(layer.weight, -0.1 / math.sqrt(inputs), 0.1 / math.sqrt(inputs))
    nn.init.zeros_(layer.bias)
    return layer


class DeepLayers(nn.Module):
    """Linear layers, each with a norm, an activation and dropout: I -> hidden[0] -> ... -> hidden[-1].

    Args:
        inputs: I.
        hidden: widths.
        kind: activation, norm and dropout of each layer; by default a ReLU alone.

    Example::

        >>> DeepLayers(8, (4, 2))(torch.zeros(3, 8)).shape
        torch.Size([3, 2])
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...], kind: Hidden | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(a, b) for a, b in pairwise((inputs, *hidden)))
        self.after = nn.ModuleList((kind or Hidden()).after(width) for width in hidden)
        self.outputs = (inputs, *hidden)[-1]

    def forward(self, x_BI: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        """[B, I] to [B, hidden[-1]]; what each layer gives is put behind `hidden`, where that is given."""
        for layer, after in zip(self.layers, self.after, strict=True):
            x_BI = after(layer(x_BI))
            if hidden is not None:
                hidden.append(x_BI)
        return x_BI


def second_order(vectors_BMD: Tensor) -> Tensor:
    """Sum of the inner products of all pairs: [B, M, D] to [B], by Rendle's identity (ICDM 2010), O(M * D).

    >>> second_order(torch.tensor([[[1.0, 0.0], [2.0, 3.0], [0.0, 1.0]]])).tolist()  # 2 + 0 + 3
    [5.0]
    """
    squared_BD = vectors_BMD.sum(1).square() - vectors_BMD.square().sum(1)
    pairs_B: Tensor = 0.5 * squared_BD.sum(1)
    return pairs_B


class MovesWhenTold(nn.Module):
    """Its buffers move when a method says so, never in a forward pass: a skipped minibatch leaves nothing to undo."""


class RunningStandardise(MovesWhenTold):
    """Centre and scale by the mean and deviation of the rows seen before, and keep the result within +-5.

    The state is part of the net's, and moves only with `observe`, so the same rows give the same numbers wherever
    training was interrupted. It starts as if `prior_rows` rows of mean 0 and deviation 1 had been seen.

    Args:
        features: N.
        prior_rows: how much the start weighs.
    """

    total: Tensor
    mean_N: Tensor
    squares_N: Tensor

    def __init__(self, features: int, prior_rows: float = 32.0) -> None:
        super().__init__()
        self.register_buffer("total", torch.tensor(prior_rows, dtype=torch.float64))
        self.register_buffer("mean_N", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("squares_N", torch.full((features,), prior_rows, dtype=torch.float64))

    def forward(self, dense_BN: Tensor) -> Tensor:
        """[B, N] standardised, float32."""
        deviation_N = (self.squares_N / self.total).clamp_min(1e-8).sqrt()
        return ((dense_BN - self.mean_N.float()) / deviation_N.float()).clamp(-5.0, 5.0)

    @torch.no_grad()
    def observe(self, dense_BN: Tensor) -> None:
        """Merge a minibatch into the running moments (Chan et al.'s parallel update)."""
        rows = dense_BN.shape[0]
        if not rows or not dense_BN.shape[1]:
            return
        wide_BN = dense_BN.double()
        mean_N = wide_BN.mean(0)
        distance_N = mean_N - self.mean_N
        total = self.total + rows
        self.squares_N += (wide_BN - mean_N).square().sum(0) + distance_N.square() * (self.total * rows / total)
        self.mean_N += distance_N * (rows / total)
        self.total.copy_(total)


class Padded:
    """Ragged positions laid out as [B, L], L being the longest row of the minibatch (at least 1)."""

    def __init__(self, sequence: Ragged) -> None:
        starts_B1 = sequence.starts_B1
        lengths_B = starts_B1[1:] - starts_B1[:-1]
        self.rows = lengths_B.shape[0]
        self.longest = max(int(lengths_B.max()) if self.rows else 0, 1)
        self.lengths_B = lengths_B
        position_S = torch.arange(sequence.rows_S.shape[0], device=starts_B1.device)
        row_S = torch.repeat_interleave(torch.arange(self.rows, device=starts_B1.device), lengths_B)
        self._slots_S = row_S * self.longest + (position_S - starts_B1[:-1][row_S])
        places_L = torch.arange(self.longest, device=starts_B1.device)
        self.mask_BL = places_L < lengths_B.unsqueeze(1)

    def fill(self, values_SD: Tensor) -> Tensor:
        """Values [S, D] as [B, L, D] with zeros where there is no position."""
        empty = values_SD.new_zeros(self.rows * self.longest, values_SD.shape[1])
        return empty.index_copy(0, self._slots_S, values_SD).view(self.rows, self.longest, values_SD.shape[1])


class MeanPooling(nn.Module):
    """The mean of a sequence's embeddings; zeros for an empty one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        del width  # as of the other poolings

    def forward(self, sequence_BLD: Tensor, mask_BL: Tensor, query_BD: Tensor) -> Tensor:
        """[B, L, D] to [B, D]; the query plays no part."""
        del query_BD
        return sequence_BLD.sum(1) / mask_BL.sum(1, keepdim=True).clamp_min(1)


class AttentionPooling(nn.Module):
    """Attention of the shown item over a sequence (after DIN: Zhou et al., KDD 2018, arXiv 1706.06978).

    A small net scores each position from (item, position, their difference, their product); a softmax weighs
    them.
    """

    def __init__(self, width: int, hidden: int = 16) -> None:
        super().__init__()
        self.score = nn.Sequential(linear(4 * width, hidden), nn.ReLU(), logit_head(hidden))

    def forward(self, sequence_BLD: Tensor, mask_BL: Tensor, query_BD: Tensor) -> Tensor:
        """[B, L, D] and the item [B, D] to [B, D]; zeros for an empty sequence."""
        query_BLD = query_BD.unsqueeze(1).expand_as(sequence_BLD)
        pairs = torch.cat((query_BLD, sequence_BLD, query_BLD - sequence_BLD, query_BLD * sequence_BLD), dim=2)
        score_BL: Tensor = self.score(pairs).squeeze(2).float().masked_fill(~mask_BL, -1e9)
        pooled_BD: Tensor = (score_BL.softmax(1).unsqueeze(2) * sequence_BLD).sum(1)  # 0 where there is no position
        return pooled_BD
