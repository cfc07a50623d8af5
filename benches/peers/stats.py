"""Medians and the interval of a median by bootstrap."""

import random
import statistics

RESAMPLES = 10_000


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % of the medians of resamples; the same for the same ratios."""
    draw = random.Random(1)
    medians = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)
    )
    return medians[RESAMPLES * 25 // 1000], medians[RESAMPLES * 975 // 1000]
