"""Statistics of a few seeds or episodes: an estimate and its 95 % bootstrap interval."""

from __future__ import annotations

import numpy as np
import scipy.stats

ESTIMATES = ("mean", "iqm")
BANDS = ("seeds", "episodes")
_RESAMPLES = 5000


def estimate(values: np.ndarray, kind: str) -> np.ndarray:
    """The mean, or the interquartile mean, over the first axis.

    The interquartile mean (Agarwal et al. 2021, arXiv 2108.13264) leaves out the lowest and the highest quarter of the
    values, `floor(n / 4)` at each end; of fewer than four values it is the mean.

    Args:
        values: `[n, ...]`.
        kind: one of `ESTIMATES`.
    """
    return scipy.stats.trim_mean(values, 0.25, axis=0) if kind == "iqm" else values.mean(0)


def interval(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The 95 % percentile bootstrap interval of `estimate` over the first axis; None for a single value.

    It resamples from a fixed seed, so the same values always have the same interval. Of a handful of values it is
    narrower than 95 %: it cannot reach beyond the lowest and the highest of them.

    Args:
        values: `[n, ...]`.
        kind: one of `ESTIMATES`.
    """
    if len(values) < 2:
        return None
    result = scipy.stats.bootstrap(
        (values,),
        lambda sample, axis: estimate(np.moveaxis(sample, axis, 0), kind),
        n_resamples=_RESAMPLES,
        batch=100,  # of a curve with hundreds of points all at once would take gigabytes
        axis=0,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return result.confidence_interval.low, result.confidence_interval.high


def episodes_interval(means: np.ndarray, stds: np.ndarray, episodes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The 95 % interval of the mean over the first axis, from all episodes of evaluations; None for a single episode.

    Student's, of `n * episodes` returns whose spread is that within the evaluations and between them. It says how well
    the episodes know these agents' mean, not how other seeds would do.

    Args:
        means: of each evaluation's episodes, `[n, ...]`.
        stds: their standard deviation, divided by the number of episodes, `[n, ...]`.
        episodes: of each evaluation.
    """
    count = len(means) * episodes
    if count < 2:
        return None
    variance = (np.square(stds) + np.square(means - means.mean(0))).mean(0)
    half = scipy.stats.t.ppf(0.975, count - 1) * np.sqrt(variance / (count - 1))
    return means.mean(0) - half, means.mean(0) + half


def improvement(values: np.ndarray, baseline: np.ndarray) -> dict[str, object]:
    """The probability that a run is better than one of the baseline, ties counting half (Agarwal et al. 2021, eq. 2).

    Args:
        values: `[n]`.
        baseline: `[m]`.

    Returns:
        `probability`, and `interval_95`, its percentile bootstrap interval over both (None where one has a single
        value).
    """

    def probability(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        difference = x[..., :, None] - y[..., None, :]
        return ((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1))

    found: dict[str, object] = {"probability": float(probability(values, baseline)), "interval_95": None}
    if len(values) > 1 and len(baseline) > 1:
        random = np.random.default_rng(0)
        x = random.choice(values, (_RESAMPLES, len(values)))
        y = random.choice(baseline, (_RESAMPLES, len(baseline)))
        found["interval_95"] = np.quantile(probability(x, y), (0.025, 0.975)).tolist()
    return found
