"""Which device, and whether the booster's layers run in bf16."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from contracts.errors import ContractError
from contracts.training import Train

#: On a CPU, bf16 pays once a minibatch costs the booster that many multiplications (weights x rows); below, casting
#: eats the gain. Measured on a Zen 4 core, co-training speed in bf16 over fp32: 6-23 million .92-1.02; 36 million 1.14;
#: 60-85 million 1.16-1.21; 140-340 million 1.24-1.57; 950 million 1.88.
_CPU_MULTIPLICATIONS = 30_000_000


def pick_device(name: str) -> torch.device:
    """The device that `train.device` names; "auto" takes a GPU where there is one.

    Raises:
        ContractError: torch does not know it or it is not here.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ContractError(f'[train] device = \'{name}\': not usable here ({reason}); set "auto" or "cpu"') from error
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def use_bf16(train: Train, booster: nn.Module | None, device: torch.device) -> bool:
    """Whether the booster's layers run in bf16: asked for, or "auto", in hardware and large enough to pay."""
    if booster is None or train.precision == "fp32":
        return False
    if train.precision == "bf16":
        return True
    if not native_bf16(device):
        return False
    weights = sum(parameter.numel() for parameter in booster.parameters() if parameter.dim() > 1)
    return device.type == "cuda" or weights * train.batch_rows >= _CPU_MULTIPLICATIONS


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Numbers too small for full precision count as 0 inside the `with` block, in this thread.

    Moments that decay towards 0 would otherwise slow each step many times over. The mode belongs to the thread, and
    others in the process may rely on denormals, so it is put back.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
