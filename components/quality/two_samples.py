"""Two-sample measures, with intervals: differences between two sets of texts or numbers.

A classifier that can't do better than chance (area under the ROC curve 0.5) is evidence that two samples come from one
source; its out-of-fold area is an effect size with a known interval, so no permutations are needed.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from components.proportions import Interval

Numbers: TypeAlias = NDArray[np.float64]
Z95 = 1.959963984540054
BOOTSTRAPS = 200
FOLDS = 5

NOTHING_KNOWN = Interval(0.5, 0.0, 1.0)


def text_auc(reference: Sequence[str], current: Sequence[str], seed: int) -> Interval:
    """Out-of-fold ROC area of a character TF-IDF + logistic regression that tells `current` from `reference`.

    With fewer than two texts on a side nothing is known: 0.5 in [0, 1].
    """
    if min(len(reference), len(current)) < 2:
        return NOTHING_KNOWN
    vectors = text_vectors([*reference, *current])
    return delong_auc(*out_of_fold_scores(vectors[: len(reference)], vectors[len(reference) :], seed))


def text_vectors(texts: Sequence[str]) -> Any:  # noqa: ANN401  (a scipy sparse matrix)
    """TF-IDF rows (texts, n-grams) of unit length; of characters, not words, so that it works for every script."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True).fit_transform(texts)


def out_of_fold_scores(
    reference: Any,  # noqa: ANN401  (scipy sparse matrices)
    current: Any,  # noqa: ANN401
    seed: int,
    *,
    even: bool = False,
) -> tuple[Numbers, Numbers]:
    """Scores of a logistic regression, greater for `current`; each row's comes from a fold that has not seen it.

    `even` gives both sides the same weight, no matter how many rows they have. At least two rows a side.
    """
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    labels = np.repeat([0, 1], [reference.shape[0], current.shape[0]])
    vectors = vstack([reference, current], format="csr")
    scores = np.zeros(len(labels))
    folds = min(FOLDS, reference.shape[0], current.shape[0])
    for learn, hold in StratifiedKFold(folds, shuffle=True, random_state=seed).split(vectors, labels):
        classifier = LogisticRegression(max_iter=200, class_weight="balanced" if even else None)
        scores[hold] = classifier.fit(vectors[learn], labels[learn]).decision_function(vectors[hold])
    return scores[labels == 0], scores[labels == 1]


def delong_auc(reference: Numbers, current: Numbers) -> Interval:
    """ROC area P(current > reference) + P(tie) / 2 with DeLong's interval (DeLong et al. 1988; Sun & Xu 2014)."""
    from scipy.stats import rankdata

    n, m = len(reference), len(current)
    ranks = rankdata(np.concatenate([current, reference]))
    above = (ranks[:m] - rankdata(current)) / n
    below = 1 - (ranks[m:] - rankdata(reference)) / m
    area = float(above.mean())
    spread = _variance(above) / m + _variance(below) / n
    half = Z95 * float(np.sqrt(spread))
    return Interval(area, max(0.0, area - half), min(1.0, area + half))


def ks_distance(reference: Numbers, current: Numbers, seed: int) -> Interval:
    """Kolmogorov-Smirnov distance of two samples, 0 to 1, with a bootstrap percentile interval."""
    return bootstrap(reference, current, seed, _ks)


def stability_index(reference: Numbers, current: Numbers, seed: int) -> Interval:
    """Population stability index over deciles of `reference`, from 0; half a count is added to each bin."""
    edges = np.unique(np.quantile(reference, np.linspace(0.1, 0.9, 9)))
    return bootstrap(reference, current, seed, lambda a, b: _psi(a, b, edges))


def instruction_similarities(current: Sequence[str], priors: Sequence[Sequence[str]]) -> list[float]:
    """Cosine of the mean TF-IDF vectors of instruction texts, one value in [0, 1] per prior set.

    The mean pairwise cosine, normalised by self-similarity, so that a set of paraphrases matches itself with 1.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [*current, *(text for prior in priors for text in prior)]
    encoder = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit(texts)

    def centre(group: Sequence[str]) -> Numbers:
        mean = np.asarray(encoder.transform(group).mean(axis=0)).ravel()
        return mean / max(float(np.linalg.norm(mean)), 1e-12)

    own = centre(current)
    return [min(1.0, float(own @ centre(prior))) for prior in priors]


def _variance(values: Numbers) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.25


def bootstrap(
    reference: Numbers, current: Numbers, seed: int, measure: Callable[[Numbers, Numbers], float]
) -> Interval:
    """A measure of two samples with its bootstrap percentile interval, widened to include the value itself."""
    draws = np.random.default_rng(seed)
    values = [
        measure(draws.choice(reference, len(reference)), draws.choice(current, len(current))) for _ in range(BOOTSTRAPS)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    value = measure(reference, current)
    return Interval(value, min(float(low), value), max(float(high), value))


def _ks(reference: Numbers, current: Numbers) -> float:
    points = np.concatenate([reference, current])
    old = np.searchsorted(np.sort(reference), points, side="right") / len(reference)
    right = np.searchsorted(np.sort(current), points, side="right") / len(current)
    return float(np.abs(old - right).max())


def _psi(reference: Numbers, current: Numbers, edges: Numbers) -> float:
    bins = len(edges) + 1
    old = (np.bincount(np.searchsorted(edges, reference), minlength=bins) + 0.5) / (len(reference) + bins / 2)
    new = (np.bincount(np.searchsorted(edges, current), minlength=bins) + 0.5) / (len(current) + bins / 2)
    return float(((new - old) * np.log(new / old)).sum())
