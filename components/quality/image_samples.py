"""Measures of the drift check on images: size, shape and brightness one by one, and all of them with a thumbnail.

The statistics go through the same two-sample tests as the lengths of texts, the thumbnails through the same classifier
as the texts themselves.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from components.proportions import Interval
from components.quality.two_samples import Numbers, delong_auc, ks_distance, out_of_fold_scores, stability_index
from components.tasks.images import Picture
from components.tasks.rows import Example

MAX_IMAGES = 300
"""Images drawn per side."""
THUMBNAIL = 8
"""Side of the thumbnail that the classifier sees, in pixels."""
APART = Interval(1.0, 1.0, 1.0)
"""ROC area of rows with images against rows without."""


def image_measures(current: Sequence[Example], earlier: Sequence[Example], seed: int) -> dict[str, Interval]:
    """Measures of two samples by name; none if neither has images."""
    rng = np.random.default_rng(seed)
    new, old = _draw(current, rng), _draw(earlier, rng)
    if not new and not old:
        return {}
    if not new or not old:
        return {"image_auc": APART}
    measures = {"image_auc": _auc(old, new, seed)}
    for name, statistic in STATISTICS.items():
        before, after = (np.array([statistic(picture) for picture in side]) for side in (old, new))
        measures[f"image_{name}_ks"] = ks_distance(before, after, seed)
        measures[f"image_{name}_psi"] = stability_index(before, after, seed)
    return measures


def _draw(rows: Sequence[Example], rng: np.random.Generator) -> list[Picture]:
    """The first images of rows drawn at random."""
    pictures = [row.images[0] for row in rows if row.images]
    return [pictures[index] for index in rng.permutation(len(pictures))[:MAX_IMAGES]]


@lru_cache(maxsize=16384)
def _features(picture: Picture) -> Numbers:
    """Width, height, aspect, brightness, and the pixels of a grey thumbnail."""
    pixels = picture.pixels()
    height, width, _ = pixels.shape
    small = Image.fromarray(pixels).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    scalars = [width, height, width / height, pixels.mean() / 255]
    return np.concatenate([scalars, np.asarray(small, np.float64).ravel() / 255])


STATISTICS: dict[str, Callable[[Picture], float]] = {
    "width": lambda picture: float(_features(picture)[0]),
    "height": lambda picture: float(_features(picture)[1]),
    "aspect": lambda picture: float(_features(picture)[2]),
    "brightness": lambda picture: float(_features(picture)[3]),
}
"""Pixels, pixels, width by height, mean of all channels from 0 to 1."""


def _auc(reference: Sequence[Picture], current: Sequence[Picture], seed: int) -> Interval:
    """As `text_auc`, on standardised features."""
    from scipy.sparse import csr_matrix

    if min(len(reference), len(current)) < 2:
        return Interval(0.5, 0.0, 1.0)
    rows = np.array([_features(picture) for picture in (*reference, *current)])
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    old, new = csr_matrix(rows[: len(reference)]), csr_matrix(rows[len(reference) :])
    return delong_auc(*out_of_fold_scores(old, new, seed))
