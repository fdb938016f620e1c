"""Picture of the pool: each task a point, tasks with similar instructions near each other, the new task marked.

Points are placed by metric scaling of 1 - cosine between the tasks' centroids: classical scaling, then majorisation
of the stress (SMACOF, de Leeuw 1977). There is no random start, so equal pools give equal pictures. Two dimensions
cannot hold many unlike tasks at equal distances: read who is near whom, not how far apart the distant ones are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.grouping.codebook import Codebook, centroid
from components.grouping.pool import Pool, distinct_instructions
from components.pages import fragment
from components.settings import GroupingSettings

_STEPS = 200
_WIDTH, _HEIGHT, _EDGE = 640, 400, 46
_LETTER, _LINE = 6.3, 13
_PLACES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1), (1, -2), (1, 2), (-1, -2), (-1, 2))

_MAP = """
<svg viewBox="0 0 {{ width }} {{ height }}" width="{{ width }}" role="img" aria-label="map of the tasks">
<rect x="0.5" y="0.5" width="{{ width - 1 }}" height="{{ height - 1 }}" rx="6" fill="#fafbfc" stroke="#e3e8ee"></rect>
{% for line in lines %}
<line x1="{{ line[0] }}" y1="{{ line[1] }}" x2="{{ line[2] }}" y2="{{ line[3] }}" stroke="{{ line[4] }}"
  stroke-width="2" opacity=".55"></line>
{% endfor %}
{% for dot in dots %}
{% if dot.new %}
<path d="M {{ dot.x }} {{ dot.y - 9 }} l 9 9 l -9 9 l -9 -9 z" fill="#1d2733" stroke="#fff" stroke-width="1.5"></path>
{% else %}
<circle cx="{{ dot.x }}" cy="{{ dot.y }}" r="6" fill="{{ dot.colour }}" stroke="#fff" stroke-width="1.5"></circle>
{% endif %}
{% endfor %}
{% for dot in dots %}
<text x="{{ dot.text_x }}" y="{{ dot.text_y }}" font-size="11.5" text-anchor="{{ dot.anchor }}"
  {% if dot.new %}font-weight="700" {% endif %}fill="#1d2733">{{ dot.label }}</text>
{% endfor %}
</svg>
<p class="note">Near tasks have similar instructions; lines join the tasks of one group, the diamond is the new task.
Distances between unlike tasks mean little.</p>
"""


@dataclass(frozen=True)
class MapPoint:
    """A task's place, both coordinates in [0, 1]; `group` is None for the task to be placed."""

    name: str
    group: str | None
    x: float
    y: float


@dataclass
class _Dot:
    x: float
    y: float
    label: str
    colour: str
    new: bool
    text_x: float = 0.0
    text_y: float = 0.0
    anchor: str = "start"


def task_map(pool: Pool, instructions: Sequence[str], settings: GroupingSettings, name: str) -> tuple[MapPoint, ...]:
    """Places of the pool's tasks and, last, of the new one."""
    texts = distinct_instructions(instructions)
    codebook = Codebook.fit(pool.groups, settings, extra=texts)
    new = centroid(codebook.encode(texts))[None, :]
    vectors = np.concatenate([codebook.centroids, new]) if len(codebook.centroids) else new
    places = _unit_square(scale(1 - np.clip(vectors @ vectors.T, 0, 1)))
    labels = [(entry, group) for group, entry, _ in codebook.entries] + [(name, None)]
    return tuple(
        MapPoint(label, group, round(float(x), 4), round(float(y), 4))
        for (label, group), (x, y) in zip(labels, places, strict=True)
    )


def scale(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) whose distances approach the given (n, n) symmetric ones."""
    count = len(distances)
    centre = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centre @ distances**2 @ centre)
    top = np.argsort(-values, kind="stable")[:2]
    points = np.zeros((count, 2))
    points[:, : len(top)] = vectors[:, top] * np.sqrt(np.clip(values[top], 0, None))
    largest = np.abs(points).argmax(axis=0)
    points *= np.where(points[largest, [0, 1]] < 0, -1, 1)  # an eigenvector's sign is arbitrary
    for _ in range(_STEPS):
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        ratio = np.divide(distances, apart, out=np.zeros_like(apart), where=apart > 1e-12)
        guttman = -ratio
        np.fill_diagonal(guttman, 0)
        np.fill_diagonal(guttman, -guttman.sum(axis=1))
        points = guttman @ points / count
    return points


def map_svg(points: Sequence[MapPoint]) -> Markup:
    """The map as inline SVG with its note; empty for fewer than two points."""
    if len(points) < 2:
        return Markup()
    groups = sorted({p.group for p in points if p.group}, key=lambda group: int(group[1:]))
    colours = {group: f"hsl({round(205 + 137.5 * i) % 360} 48% 42%)" for i, group in enumerate(groups)}
    dots = [
        _Dot(
            x=round(_EDGE + p.x * (_WIDTH - 2 * _EDGE), 1),
            y=round(_EDGE + p.y * (_HEIGHT - 2 * _EDGE), 1),
            label=f"{p.group or 'new'} {p.name[:24]}",
            colour=colours[p.group] if p.group else "",
            new=p.group is None,
        )
        for p in points
    ]
    _place_labels(dots)
    lines = []
    for group in groups:
        members = [dot for dot, p in zip(dots, points, strict=True) if p.group == group]
        middle_x, middle_y = (round(float(np.mean(v)), 1) for v in zip(*((d.x, d.y) for d in members), strict=True))
        if len(members) > 1:
            lines += [(dot.x, dot.y, middle_x, middle_y, colours[group]) for dot in members]
    return fragment(_MAP, width=_WIDTH, height=_HEIGHT, dots=dots, lines=lines)


def _unit_square(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred and shrunk into the unit square; never stretched, so that near tasks stay near in a small pool."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    positions: NDArray[np.float64] = (points - low - span / 2) / np.maximum(span, 1) + 0.5
    return positions


def _place_labels(dots: Sequence[_Dot]) -> None:
    """Place each label so that it covers the least of points and of earlier labels."""
    boxes = [(d.x - 9, d.y - 9, d.x + 9, d.y + 9) for d in dots]
    for dot in sorted(dots, key=lambda d: (not d.new, d.x, d.y)):
        width = _LETTER * len(dot.label)
        best = None
        for side, row in _PLACES:
            x = dot.x + (12 if side > 0 else -12 - width if side < 0 else -width / 2)
            top = dot.y - _LINE / 2 + row * _LINE * (1.5 if side == 0 else 1)
            box = (x, top, x + width, top + _LINE)
            outside = max(0, 4 - x) + max(0, x + width - _WIDTH + 4) + max(0, 4 - top) + max(0, box[3] - _HEIGHT)
            cost = 1000 * outside + sum(_overlap(box, other) for other in boxes)
            if best is None or cost < best[0] - 1e-9:
                best = (cost, box, side)
            if cost == 0:
                break
        if best is not None:
            _, box, side = best
            boxes.append(box)
            dot.text_y = round(box[3] - 3, 1)
            dot.text_x = round(box[0] if side > 0 else box[2] if side < 0 else dot.x, 1)
            dot.anchor = "start" if side > 0 else "end" if side < 0 else "middle"


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
