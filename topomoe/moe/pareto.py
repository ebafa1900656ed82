"""Which configurations no other beats in quality and in time, and how sure that is over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
DRAWS = 2000  # bootstrap samples of the seeds, where there are not fewer in all


def undominated(loss: FloatArray, seconds: FloatArray) -> NDArray[np.bool_]:
    """Return which points are on the front, [..., n]: no other is as good in both, better in one.

    Lower is better in both; points that are equal in both stand or fall together.
    """
    ahead = (loss[..., None, :] <= loss[..., :, None]) & (
        seconds[..., None, :] <= seconds[..., :, None]
    )
    better = (loss[..., None, :] < loss[..., :, None]) | (
        seconds[..., None, :] < seconds[..., :, None]
    )
    return np.asarray(~(ahead & better).any(axis=-1))


def seed_samples(seeds: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Return samples of the seeds with replacement, [n, S]: all S**S, or ``draws`` if fewer."""
    if seeds**seeds <= draws:
        return np.array(list(product(range(seeds), repeat=seeds)), dtype=np.int64)
    return np.random.default_rng(seed).integers(seeds, size=(draws, seeds))


def front_rows(
    names: Sequence[str],
    loss: FloatArray,
    seconds: FloatArray,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return a row a point, fastest first, from losses (nats) and step seconds on one topology.

    Both are [n, S] of the same seeds, which a bootstrap draws together for all points. ``front``
    says whether the means over seeds are undominated, ``front_share`` in how many of the samples
    they are, ``front_seeds`` in how many single seeds. Perplexity is exp of the mean loss. With
    three seeds there are 27 samples: a share tells a sure place on the front from a lucky one, not
    99 % from 95 %. Raises InputError for other shapes and numbers that are not finite.
    """
    if loss.shape != seconds.shape or loss.ndim != 2 or len(loss) != len(names) or not loss.size:
        raise InputError(
            f"loss and seconds must be [n, S] of {len(names)} points, "
            f"got {loss.shape} and {seconds.shape}"
        )
    if not (np.isfinite(loss).all() and np.isfinite(seconds).all()):
        raise InputError("loss and seconds must be finite")
    mean_loss, mean_seconds = loss.mean(axis=1), seconds.mean(axis=1)
    on_front = undominated(mean_loss, mean_seconds)
    samples = seed_samples(loss.shape[1], draws, seed)
    share = np.zeros(len(names))
    for picks in samples:
        share += undominated(loss[:, picks].mean(axis=1), seconds[:, picks].mean(axis=1))
    single = undominated(loss.T, seconds.T).sum(axis=0)
    return [
        {
            "name": names[i],
            "perplexity": exp(float(mean_loss[i])),
            "seconds": float(mean_seconds[i]),
            "front": bool(on_front[i]),
            "front_share": float(share[i] / len(samples)),
            "front_seeds": int(single[i]),
            "seeds": loss.shape[1],
        }
        for i in np.argsort(mean_seconds, kind="stable")
    ]
