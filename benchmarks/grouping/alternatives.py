"""Other ways to score a request against a task, on jobs.yaml: nothing here is used by the product.

    python -m benchmarks.grouping.alternatives

`centroid` is what the router does; `nearest` takes the task's most similar instruction; `mean` is halfway. "right" is
counted at the threshold that sends 97.5 % of the general requests to the base model.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.grouping.calibrate import SITES, Work
from components.grouping.encoders import fit_encoder
from components.settings import GroupingSettings

ASKED = ("own", "general")
Scores = dict[tuple[str, str, str, str], np.ndarray]


def main() -> None:
    work = Work.read()
    own = np.repeat(np.arange(len(work.jobs)), 3)
    scores: Scores = {}
    for encoder in ("tfidf", "embedding"):
        for known, new in SITES:
            score(scores, work, encoder, known, new)
    for encoder in ("tfidf", "embedding"):
        line(f"{encoder}, centroid", own, lambda k, w, e=encoder: scores[e, "centroid", k, w])
        line(f"{encoder}, nearest", own, lambda k, w, e=encoder: scores[e, "nearest", k, w])
        line(
            f"{encoder}, mean",
            own,
            lambda k, w, e=encoder: (scores[e, "centroid", k, w] + scores[e, "nearest", k, w]) / 2,
        )
    for share in (0.3, 0.5):
        mixed = {
            (k, w): share * scores["tfidf", "centroid", k, w] + (1 - share) * scores["embedding", "centroid", k, w]
            for k in "ab"
            for w in ASKED
        }
        line(f"{share:.1f} tfidf + {1 - share:.1f} embedding, centroids", own, lambda k, w, m=mixed: m[k, w])


def score(scores: Scores, work: Work, encoder: str, known: str, new: str) -> None:
    """Fill in the scores (texts, jobs) of the other site's requests and of the general ones."""
    texts = [text for sites in work.jobs.values() for text in sites[known]]
    fitted = fit_encoder(GroupingSettings(encoder=encoder), texts)

    def dense(these: list[str]) -> np.ndarray:
        rows = fitted.encode(these)
        return rows if isinstance(rows, np.ndarray) else rows.toarray().astype(np.float32)

    book = dense(texts).reshape(len(work.jobs), 3, -1)
    centroids = book.mean(axis=1)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    for what, these in (("own", [t for sites in work.jobs.values() for t in sites[new]]), ("general", work.general)):
        rows = dense(these)
        scores[encoder, "centroid", known, what] = rows @ centroids.T
        scores[encoder, "nearest", known, what] = np.stack([rows @ part.T for part in book]).max(axis=2).T


def line(label: str, own: np.ndarray, score_of: Callable[[str, str], np.ndarray]) -> None:
    found = np.concatenate([score_of(known, "own") for known, _ in SITES])
    general = np.concatenate([score_of(known, "general").max(axis=1) for known, _ in SITES])
    right, threshold = found.argmax(axis=1) == np.tile(own, 2), np.quantile(general, 0.975)
    routed = found.max(axis=1) > threshold
    print(
        f"{label:45} nearest is right {right.mean():.3f}; threshold {threshold:.2f}: "
        f"right {(right & routed).mean():.3f}, wrong {(~right & routed).mean():.3f}"
    )


if __name__ == "__main__":
    main()
