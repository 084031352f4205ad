"""Training of the paper's nets on images: boosters alone, and light nets by each of `METHODS`.

What a seed draws (weights, order, shifts) is the same for every method, so that differences between methods are paired.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from deploy.benches.paper_data import ImageSet, Split
from deploy.benches.paper_methods import Method, loss_of
from model.vision.augment import mirrored, shifted
from model.vision.wrn import Seen, Structure, WideResNet, WrnSize, light_beside, light_size

_JUDGED_AT_ONCE = 1000
_FALL = 0.2
Weights = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and by what steps; the defaults are the paper's for CIFAR."""

    epochs: int = 200
    batch: int = 128
    optimiser: Literal["sgd", "adam"] = "sgd"  #: SGD with momentum .9, or Adam
    lr: float = 0.1
    falls: tuple[float, ...] = (0.3, 0.6, 0.8)  #: shares of the epochs after which lr is times .2
    decay: float = 5e-4  #: of every weight, with SGD
    shift: int = 4  #: pixels that training images move by at most
    mirror: bool = True
    dropout: float = 0.0  #: in the booster


class Run(NamedTuple):
    """What became of one training."""

    light_error: float | None  #: % of the test images that the light net misjudges
    booster_error: float | None  #: the same of the booster that was trained in this run
    cpu_s: float  #: CPU seconds of the process for the training alone
    wall_s: float
    light: Weights | None
    booster: Weights | None


class _OnDevice:
    """Images as standardised floats on the device, as minibatches."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self._device = device
        mean_K, deviation_K = mean_and_deviation(images.train.images)
        self._mean_K11 = torch.from_numpy(mean_K).float().view(-1, 1, 1).to(device)
        self._deviation_K11 = torch.from_numpy(deviation_K).float().view(-1, 1, 1).clamp_min(1.0).to(device)
        self._train = self._loaded(images.train)
        self._test = self._loaded(images.test)

    def _loaded(self, split: Split) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(split.images).to(self._device), torch.from_numpy(split.labels).to(self._device)

    def _standardised(self, bytes_BKHW: Tensor) -> Tensor:
        return (bytes_BKHW.float() - self._mean_K11) / self._deviation_K11

    def epoch(self, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Minibatches in random order, moved and mirrored; the rest that fills none is left out this time."""
        images, labels = self._train
        order = torch.randperm(len(labels), generator=generator).to(self._device)
        batch = min(recipe.batch, len(labels))
        for start in range(0, len(labels) - batch + 1, batch):
            rows = order[start : start + batch]
            x_BKHW = self._standardised(images[rows])
            if recipe.shift:
                x_BKHW = shifted(x_BKHW, recipe.shift, generator)
            yield (mirrored(x_BKHW, generator) if recipe.mirror else x_BKHW), labels[rows]

    def judged(self, see: Callable[[Tensor], Seen]) -> float:
        """Misjudged test images, %."""
        images, labels = self._test
        wrong = torch.zeros((), dtype=torch.int64, device=self._device)
        for start in range(0, len(labels), _JUDGED_AT_ONCE):
            part = slice(start, start + _JUDGED_AT_ONCE)
            wrong += (see(self._standardised(images[part])).logit_BC.argmax(1) != labels[part]).sum()
        return 100.0 * int(wrong) / len(labels)

    def sample(self, count: int) -> Tensor:
        """The first test images, standardised."""
        return self._standardised(self._test[0][:count])


class Lab:
    """Trains on one set of images with one recipe.

    Args:
        images: to learn and to judge.
        recipe: how.
        booster: the booster's size; its dropout is the recipe's.
        device: where.
    """

    def __init__(self, images: ImageSet, recipe: Recipe, booster: WrnSize, device: torch.device) -> None:
        self._data = _OnDevice(images, device)
        self._recipe = recipe
        self._booster = replace(booster, dropout=recipe.dropout)
        self._device = device

    def train_booster(self, seed: int) -> Run:
        """The booster alone, as a teacher is trained."""
        booster = self._made_booster(seed)

        def step(x_BKHW: Tensor, class_B: Tensor) -> Tensor:
            return nn.functional.cross_entropy(booster(x_BKHW).logit_BC, class_B)

        cpu_s, wall_s = self._descend(step, [booster], seed)
        return Run(None, self._error(booster), cpu_s, wall_s, None, _weights(booster))

    def train_light(self, method: Method, depth: int, structure: Structure, seed: int, teacher: Weights | None) -> Run:
        """A light net by one method.

        Args:
            method: a row of `METHODS`.
            depth: of the light net.
            structure: how it lies in the booster.
            seed: of weights and order.
            teacher: the weights of `train_booster`, where the method has a teacher.
        """
        booster = self._made_booster(seed) if method.joint else None
        light = self._made_light(booster, method, depth, structure, seed)
        guide = self._frozen(teacher) if method.teacher and teacher is not None else None

        def step(x_BKHW: Tensor, class_B: Tensor) -> Tensor:
            with torch.no_grad():
                told = None if guide is None else guide(x_BKHW)
            return loss_of(method, light(x_BKHW), None if booster is None else booster(x_BKHW), told, class_B)

        cpu_s, wall_s = self._descend(step, [light] if booster is None else [light, booster], seed)
        judged = None if booster is None else self._error(booster)
        kept = None if booster is None else _weights(booster)
        return Run(self._error(light), judged, cpu_s, wall_s, _weights(light), kept)

    def maps(self, weights: Weights, size: WrnSize, count: int) -> tuple[np.ndarray, ...]:
        """What a trained net makes of the first test images: each group's maps, [B, channels, h, w]."""
        net = _loaded(WideResNet(size), weights).to(self._device).eval()
        with torch.no_grad():
            return tuple(group.cpu().numpy() for group in net(self._data.sample(count)).maps)

    def light_size(self, depth: int, structure: Structure) -> WrnSize:
        """The size of a light net beside this lab's booster."""
        return light_size(self._booster, depth, structure)

    @property
    def booster_size(self) -> WrnSize:
        """The booster's size."""
        return self._booster

    def _made_booster(self, seed: int) -> WideResNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4 * seed)
            return WideResNet(self._booster).to(self._device)

    def _made_light(
        self, booster: WideResNet | None, method: Method, depth: int, structure: Structure, seed: int
    ) -> WideResNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4 * seed + 1)
            if booster is not None:
                return light_beside(booster, depth, structure, shared=method.shared).to(self._device)
            return WideResNet(self.light_size(depth, structure)).to(self._device)

    def _frozen(self, weights: Weights) -> WideResNet:
        return _loaded(WideResNet(self._booster), weights).to(self._device).eval().requires_grad_(requires_grad=False)

    def _descend(
        self, step: Callable[[Tensor, Tensor], Tensor], nets: list[WideResNet], seed: int
    ) -> tuple[float, float]:
        """Minimise; returns CPU and wall seconds."""
        recipe = self._recipe
        weights = list(dict.fromkeys(parameter for net in nets for parameter in net.parameters()))
        optimiser = _optimiser(recipe, weights)
        falls = [round(share * recipe.epochs) for share in recipe.falls]
        generator = torch.Generator().manual_seed(4 * seed + 2)
        with torch.random.fork_rng(devices=[]), _timed(self._device) as taken:
            torch.manual_seed(4 * seed + 3)  # of dropout
            for epoch in range(recipe.epochs):
                for group in optimiser.param_groups:
                    group["lr"] = recipe.lr * _FALL ** sum(epoch >= fall for fall in falls)
                for x_BKHW, class_B in self._data.epoch(recipe, generator):
                    optimiser.zero_grad()
                    step(x_BKHW, class_B).backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
        return taken["cpu_s"], taken["wall_s"]

    def _error(self, net: WideResNet) -> float:
        net.eval()
        with torch.no_grad():
            return self._data.judged(net)


def mean_and_deviation(images_NKHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel of bytes, from how often each value occurs: no copy of the images as floats.

    >>> mean_and_deviation(np.array([0, 4, 4, 0], np.uint8).reshape(2, 1, 1, 2))
    (array([2.]), array([2.]))
    """
    values = np.arange(256.0)
    shares_KV = np.stack([np.bincount(images_NKHW[:, k].ravel(), minlength=256) for k in range(images_NKHW.shape[1])])
    shares_KV = shares_KV / shares_KV.sum(1, keepdims=True)
    mean_K = shares_KV @ values
    return mean_K, np.sqrt((shares_KV * np.square(values - mean_K[:, None])).sum(1))


def _optimiser(recipe: Recipe, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimiser == "adam":
        return torch.optim.Adam(weights, lr=recipe.lr)
    return torch.optim.SGD(weights, lr=recipe.lr, momentum=0.9, weight_decay=recipe.decay)


@contextmanager
def _timed(device: torch.device) -> Iterator[dict[str, float]]:
    """CPU and wall seconds of the block, once the device has done all of it."""
    taken: dict[str, float] = {}
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    yield taken
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    taken |= {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s}


def _weights(net: nn.Module) -> Weights:
    return {name: value.detach().cpu().numpy().copy() for name, value in net.state_dict().items()}


def _loaded(net: WideResNet, weights: Weights) -> WideResNet:
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return net
