"""Sequential test of a trial's rule: a candidate's odds of a bad event are at most `tolerance` times the champion's.

People look at a trial all the time and stop it once it looks bad, which a test of fixed size does not allow. This one
does. Its evidence is an e-value: a number whose mean is at most 1 while the candidate is no worse than tolerated,
however long one looks, so that it ever reaches 1/level with a chance of at most `level` (Ville's inequality).

Each batch multiplies it by the likelihood ratio of a larger ratio of odds `w` to the tolerated one:
- unpaired (canary): of n1 candidate and n0 champion requests k1 and k0 were bad. Given both sizes and k1 + k0, the
  count k1 has Fisher's noncentral hypergeometric distribution, which depends on the ratio of odds alone.
- paired (shadow): both answer one request. Among pairs of which exactly one is bad, those that are bad for the
  candidate are binomial; their odds are the ratio of the two kinds of discordant pairs (McNemar).
Both families have a monotone likelihood ratio, so the mean is at most 1 for every smaller ratio of odds, too. The
products for several `w` are averaged: a mean of such evidence is such evidence.

Assumed: given which version answers, requests of a batch are bad independently and with one probability per version.
Sizes of batches, and when to look, may depend on everything before. Bad requests often come in bursts, because clients
try again and callers repeat themselves; taken as independent they would stop harmless candidates far more often than
the level says. So each likelihood ratio is raised to the power 1 / `together`, the size of a burst: for pairs that is
exactly the ratio of the bursts, and by Jensen's inequality its mean stays at most 1 where requests are independent.
Larger clusters, such as few callers behind most bad requests of a canary, still make the level too small.

Sources: Grünwald, de Heide, Koolen, "Safe testing", JRSS B 86 (2024); Turner, Ly, Grünwald, "Generic e-variables for
exact sequential k-sample tests that allow for optional stopping", JSPI 230 (2024); Ville (1939); Fisher's noncentral
hypergeometric distribution as in `scipy.stats.nchypergeom_fisher`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

from components.errors import LciaError
from components.storage.objects import Json

FACTORS = (1.5, 2.0, 4.0, 8.0, 16.0)
"""Ratios of odds that count as worse, in units of the tolerated one."""
MOST_EVENTS = 2_000_000
"""Bad events that one batch may have: the sum over their distribution takes 100 MB."""
HIGHEST = 700.0
"""Natural logarithm up to which an e-value is shown as a number."""


class CountsRefused(LciaError):
    """Counts that no trial can have."""


@dataclass(frozen=True)
class SequentialTest:
    """Evidence so far against one candidate under one rule."""

    tolerance: float
    """Ratio of odds, candidate to champion, up to which it is no worse."""
    together: float = 1.0
    """Requests that tend to be bad together, at least 1; see above."""
    logs: tuple[float, ...] = (0.0,) * len(FACTORS)
    """Natural logarithm of the product for each of `FACTORS`."""

    def unpaired(self, n1: int, k1: int, n0: int, k0: int) -> "SequentialTest":
        """Test after a batch of `n1` candidate requests, `k1` bad, and `n0` champion requests, `k0` bad.

        Raises:
            CountsRefused: a count is negative, larger than its size, or beyond `MOST_EVENTS`.
        """
        if not (0 <= k1 <= n1 and 0 <= k0 <= n0 and k1 + k0 <= MOST_EVENTS):
            raise CountsRefused(
                f"a batch has {k1} bad of {n1} and {k0} bad of {n0} requests; expected 0 <= bad <= requests, and at "
                f"most {MOST_EVENTS} bad ones"
            )
        if not (n1 and n0 and k1 + k0):
            return self
        weights = _log_weights(n1, n0, k1 + k0)
        null = _log_total(weights, self.tolerance)
        return self._times(
            tuple(k1 * math.log(factor) + null - _log_total(weights, w) for factor, w in self._alternatives)
        )

    def paired(self, candidate_only: int, champion_only: int) -> "SequentialTest":
        """Test after a batch of pairs of which so many were bad for one of the two alone.

        Raises:
            CountsRefused: a count is negative.
        """
        if candidate_only < 0 or champion_only < 0:
            raise CountsRefused(
                f"a batch has {candidate_only} and {champion_only} pairs that differ; expected 0 or more of each"
            )
        pairs, null = candidate_only + champion_only, math.log1p(self.tolerance)
        return self._times(
            tuple(
                candidate_only * math.log(factor) + pairs * (null - math.log1p(w)) for factor, w in self._alternatives
            )
        )

    @cached_property
    def log_e(self) -> float:
        """Natural logarithm of the e-value."""
        return float(scipy.special.logsumexp(self.logs)) - math.log(len(self.logs))

    @property
    def e(self) -> float:
        """The e-value, for people and records; capped at e^700."""
        return math.exp(min(self.log_e, HIGHEST))

    def reaches(self, threshold: float) -> bool:
        """True if the evidence is enough to stop."""
        return self.log_e >= math.log(threshold)

    def nearness(self, threshold: float) -> float:
        """Part of the way to a threshold, on the scale of logarithms: 0 for no evidence, 1 once it is reached."""
        return min(1.0, max(0.0, self.log_e / math.log(threshold)))

    def to_json(self) -> dict[str, Json]:
        """The state, for the database."""
        return {"tolerance": self.tolerance, "together": self.together, "logs": list(self.logs)}

    @classmethod
    def of_json(cls, value: Mapping[str, Json]) -> "SequentialTest":
        """The test whose `to_json` this is."""
        return cls(float(value["tolerance"]), float(value["together"]), tuple(float(log) for log in value["logs"]))

    @property
    def _alternatives(self) -> tuple[tuple[float, float], ...]:
        return tuple((factor, factor * self.tolerance) for factor in FACTORS)

    def _times(self, logs: Sequence[float]) -> "SequentialTest":
        parts = zip(self.logs, logs, strict=True)
        return replace(self, logs=tuple(before + log / self.together for before, log in parts))


def threshold(level: float, rules: int) -> float:
    """E-value at which one of `rules` rules stops a trial, so that all together stop wrongly with at most `level`."""
    return rules / level


def _log_weights(n1: int, n0: int, bad: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Possible counts k of bad candidate requests, and log of C(n1, k) C(n0, bad - k) for each."""
    counts = np.arange(max(0, bad - n0), min(n1, bad) + 1, dtype=np.float64)
    return counts, _log_choose(n1, counts) + _log_choose(n0, bad - counts)


def _log_choose(n: int, k: NDArray[np.float64]) -> NDArray[np.float64]:
    log_factorial = scipy.special.gammaln
    result: NDArray[np.float64] = log_factorial(n + 1) - log_factorial(k + 1) - log_factorial(n - k + 1)
    return result


def _log_total(weights: tuple[NDArray[np.float64], NDArray[np.float64]], ratio: float) -> float:
    """Log of the distribution's normalising sum at a ratio of odds."""
    counts, logs = weights
    return float(scipy.special.logsumexp(logs + counts * math.log(ratio)))
