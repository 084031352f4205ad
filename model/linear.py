"""The yardstick: the best linear model that one online pass over the light net's fields gives."""

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import torch

from contracts.app import App
from contracts.errors import CorruptError
from contracts.segments import Role

# B = rows of a batch, F = id features, N = dense features, U = distinct weights that a batch touches


class HashedLinear:
    """Logistic regression on hashed ids and dense fields, learnt by FTRL-proximal, one minibatch a step.

    FTRL (McMahan et al., KDD 2013) gives each weight its own rate, alpha / (beta + sqrt(sum of squared gradients)), and
    an L2 pull that keeps rare ids near zero. Weights derive from the two sums that are its state.
    Sample weights and the logit correction of negative sampling are honoured as by the nets. Where labels come late a
    correction takes back the negative that it corrects: summed, the gradients are those of the final labels.
    """

    def __init__(self, app: App, *, beta: float = 0.1, l2: float = 0.3) -> None:
        self._layout, sampling = app.layout, app.config.sampling
        self._waits = app.config.labels.mode == "wait"
        # negatives kept at rate r: the training rows' odds are 1/r times those of the stream, whatever the label
        self._shift = -math.log(sampling.negative_keep_rate) if sampling.correction == "logit" else 0.0
        self._alpha, self._beta, self._l2 = app.config.train.linear_lr, beta, l2
        offsets = self._layout.offsets
        self._ids = [(feature, offsets[feature.name]) for feature in self._layout.light_ids]
        self._dense = [feature.name for feature in self._layout.light_dense]
        # one weight an id row, then one a dense field, then the bias
        size = self._layout.light_rows + len(self._dense) + 1
        self._z, self._n = np.zeros(size), np.zeros(size)

    def learn(self, frame: pl.DataFrame) -> np.ndarray:
        """Predict the rows, then take one step on them.

        Args:
            frame: columns of `contracts.segments.example_schema`.

        Returns:
            [B] probabilities made before the step.
        """
        index_BF, dense_BN = self._inputs(frame)
        logit_B = self._logit(index_BF, dense_BN)
        label_B = frame["label"].to_numpy().astype(np.float64)
        error_B = (_sigmoid(logit_B + self._shift) - label_B) * frame["weight"].to_numpy().astype(np.float64)
        if not self._waits:
            role_B = frame["role"].to_numpy()
            error_B[role_B == Role.CORRECTION] = -1.0  # (p - 1) - p
            error_B[(role_B == Role.SETTLED) & (label_B == 0)] = 0.0
        touched_U, where = np.unique(index_BF, return_inverse=True)
        gradient_U = np.bincount(where.reshape(-1), np.repeat(error_B, index_BF.shape[1]), touched_U.size)
        self._step(touched_U, gradient_U)
        first = self._layout.light_rows
        always = np.arange(first, self._z.size)  # the dense fields and the bias
        self._step(always, np.r_[(error_B[:, None] * dense_BN).sum(axis=0), error_B.sum()])
        return _sigmoid(logit_B)

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """[B] probabilities; nothing is learnt."""
        return _sigmoid(self._logit(*self._inputs(frame)))

    def state(self) -> dict[str, torch.Tensor]:
        """Both sums of every weight, as views: copy them before the next step."""
        return {"z": torch.from_numpy(self._z), "n": torch.from_numpy(self._n)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from the `state` of an earlier one.

        Raises:
            CorruptError: a tensor is missing or has another shape.
        """
        for name, mine in (("z", self._z), ("n", self._n)):
            if name not in state or tuple(state[name].shape) != mine.shape:
                raise CorruptError(
                    f"checkpoint: the linear model's tensor '{name}' is missing or not of shape {list(mine.shape)}; "
                    "use another checkpoint, or train anew with --fresh"
                )
            mine[:] = state[name].numpy()

    def _inputs(self, frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Weight numbers [B, F] and dense values [B, N]."""
        index_BF = np.empty((frame.height, len(self._ids)), np.int64)
        for column, (feature, offset) in enumerate(self._ids):
            values = frame[feature.name].to_numpy()
            if feature.dynamic is not None:  # the yardstick hashes where the nets do not
                values = np.where(values == 0, 0, values % np.uint64(feature.rows - 1) + np.uint64(1))
            index_BF[:, column] = values
            index_BF[:, column] += offset
        dense_BN = np.empty((frame.height, len(self._dense)))
        for column, name in enumerate(self._dense):
            dense_BN[:, column] = frame[name].to_numpy()
        return index_BF, dense_BN

    def _logit(self, index_BF: np.ndarray, dense_BN: np.ndarray) -> np.ndarray:
        first = self._layout.light_rows
        always = self._weights(np.arange(first, self._z.size))
        logit_B: np.ndarray = self._weights(index_BF).sum(axis=1) + (dense_BN * always[:-1]).sum(axis=1) + always[-1]
        return logit_B

    def _weights(self, index: np.ndarray) -> np.ndarray:
        """The weights themselves: FTRL's closed form without L1."""
        weights: np.ndarray = -self._z[index] / ((self._beta + np.sqrt(self._n[index])) / self._alpha + self._l2)
        return weights

    def _step(self, index: np.ndarray, gradient: np.ndarray) -> None:
        """FTRL-proximal on distinct weights."""
        before, weights = self._n[index], self._weights(index)
        after = before + gradient * gradient
        self._z[index] += gradient - (np.sqrt(after) - np.sqrt(before)) / self._alpha * weights
        self._n[index] = after


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    made: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(logit, -40.0, 40.0)))
    return made
