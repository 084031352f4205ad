"""What each user clicked lately, as the serving system knew it: refreshed a chunk, only with clicks of the past."""

import numpy as np
import polars as pl

from nodes.simulate.effects import Ints
from nodes.simulate.world import HISTORY, USERS


class Histories:
    """The last `HISTORY` clicked ads of every user, oldest first, and the clicks that are not known yet."""

    def __init__(self, user: Ints, ad: Ints) -> None:
        self._user, self._ad = user, ad
        self._new_user, self._new_ad, self._new_time = (np.empty(0, np.int64) for _ in range(3))

    def clicked(self, user: Ints, ad: Ints, time_ms: Ints) -> None:
        """Clicks happened at `time_ms`; they are known from then on."""
        self._new_user = np.concatenate([self._new_user, user])
        self._new_ad = np.concatenate([self._new_ad, ad])
        self._new_time = np.concatenate([self._new_time, time_ms])

    def at(self, now_ms: int) -> tuple[Ints, Ints]:
        """Users and clicked ads, by user and then by time, of all clicks up to `now_ms`."""
        known = self._new_time <= now_ms
        if known.any():
            order = np.flatnonzero(known)[np.argsort(self._new_time[known], kind="stable")]
            user = np.concatenate([self._user, self._new_user[order]])
            ad = np.concatenate([self._ad, self._new_ad[order]])
            order = np.argsort(user, kind="stable")
            user, ad = user[order], ad[order]
            ends = np.searchsorted(user, np.arange(USERS), side="right")
            kept = ends[user] - np.arange(len(user)) <= HISTORY
            self._user, self._ad = user[kept], ad[kept]
            self._new_user, self._new_ad = self._new_user[~known], self._new_ad[~known]
            self._new_time = self._new_time[~known]
        return self._user, self._ad

    def column(self, now_ms: int, item_ids: pl.Series) -> pl.Series:
        """A list of item ids for each user, empty for those who clicked nothing."""
        user, ad = self.at(now_ms)
        lists = (
            pl.DataFrame({"user": user, "history": item_ids.gather(ad)})
            .group_by("user", maintain_order=True)
            .agg("history")
        )
        everyone = pl.DataFrame({"user": np.arange(USERS)}).join(lists, on="user", how="left", maintain_order="left")
        return everyone["history"].fill_null(pl.lit([], pl.List(pl.String)))
