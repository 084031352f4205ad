"""Images moved and mirrored at random, a whole minibatch at once. Shapes: B images, K channels, H x W pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(x_BKHW: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each image cut at a random place out of itself with `most` mirrored pixels around it.

    He et al., CVPR 2016, section 4.2, with `most` = 4 and zeros around; the rocket paper's code mirrors.

    Args:
        x_BKHW: on any device, float.
        most: pixels around; less than H and W.
        generator: draws the places, on the CPU.

    >>> shifted(torch.ones(2, 1, 4, 4), 1, torch.Generator()).shape
    torch.Size([2, 1, 4, 4])
    """
    rows, _, height, width = x_BKHW.shape
    padded = F.pad(x_BKHW, (most,) * 4, mode="reflect")
    top_B, left_B = torch.randint(0, 2 * most + 1, (2, rows), generator=generator).to(x_BKHW.device)
    row_BH1 = (top_B[:, None] + torch.arange(height, device=x_BKHW.device))[:, :, None]
    column_B1W = (left_B[:, None] + torch.arange(width, device=x_BKHW.device))[:, None, :]
    image_B11 = torch.arange(rows, device=x_BKHW.device)[:, None, None]
    cut_BHWK: Tensor = padded.permute(0, 2, 3, 1)[image_B11, row_BH1, column_B1W]
    return cut_BHWK.permute(0, 3, 1, 2).contiguous()


def mirrored(x_BKHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each image left to right with probability a half.

    >>> mirrored(torch.ones(2, 1, 4, 4), torch.Generator()).shape
    torch.Size([2, 1, 4, 4])
    """
    flip_B = (torch.rand(x_BKHW.shape[0], generator=generator) < 0.5).to(x_BKHW.device)
    return torch.where(flip_B[:, None, None, None], x_BKHW.flip(3), x_BKHW)
