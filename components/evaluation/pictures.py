"""Pictures for people, as PNG: accuracy matrix, stability-plasticity curve, and what happened while tuning.

Each has its title, so that it can be read alone (MLflow shows them without a page around them).

They stay PNG drawn by matplotlib, beside the console's SVG: pictures of earlier versions are stored and published as
PNG under the same names, so both formats would have to be served for ever; the console's drawings take their colours
from its style sheet, which MLflow lacks; and MLflow needs matplotlib itself, so no dependency would go.
"""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from components.evaluation.accuracy_matrix import AccuracyMatrix
from components.proportions import wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 130
_BLUE, _ORANGE, _GREEN, _INK, _PALE = "#33658a", "#c2410c", "#4d8b5b", "#1d2733", "#b9c4cf"
_KINDS = (
    ("live weights", r"live", "s", _INK),
    ("protected weights", r"ema", "o", _BLUE),
    ("mixes with the parent", r"mix-.*", "D", _GREEN),
    ("other points", r".*", "o", _PALE),
)
"""Kinds of points of the curve: legend, pattern of the name, marker, colour; the first that fits."""
_WITH_NUMBERS = 16
"""Tasks up to which the heat map writes each score and grows; beyond, it keeps its size and shows colours alone."""
_NAMED = 40
"""Rows and columns of a heat map without numbers that bear a name."""
_HISTORIES = 12
"""Tasks whose scores over the versions are drawn: those that lost most."""
_DISTANCES = (8, 20, 34, 50, 68, 88)
_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))


def heat_map_png(matrix: AccuracyMatrix) -> bytes:
    """The accuracy matrix as a heat map: a row per version, a column per task."""
    import numpy as np

    size = len(matrix.tasks)
    numbers = size <= _WITH_NUMBERS
    figure = _figure(*((max(4.6, 1.25 * size + 2.6), max(2.8, 0.62 * size + 1.6)) if numbers else (13.5, 10.0)))
    axes = figure.subplots()
    cells = np.full((size, size), np.nan)
    for j, row in enumerate(matrix.rows):
        for i, cell in enumerate(row):
            cells[j, i] = np.nan if cell is None else cell
    image = axes.imshow(cells, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto")
    if numbers:
        _write_scores(axes, cells)
    else:
        unknown = [(i, j) for j in range(size) for i in range(j + 1) if np.isnan(cells[j, i])]
        axes.plot([i for i, _ in unknown], [j for _, j in unknown], "x", color=_ORANGE, markersize=3)
    ticks = range(0, size, -(-size // _NAMED))
    names = [_short(matrix.tasks[i]) for i in ticks]
    axes.set_xticks(ticks, names, rotation=30 if size > 4 else 0, ha="right" if size > 4 else "center")
    axes.set_yticks(ticks, [f"after {name}" for name in names])
    axes.set_title(
        "Score on each task after each task learnt" + ("" if numbers else "  (x: not measurable)"), fontsize=11
    )
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=9 if numbers else 7)
    figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=8)
    return _png(figure)


def _write_scores(axes: Any, cells: Any) -> None:  # noqa: ANN401  matplotlib and numpy are untyped here
    import numpy as np

    for j in range(len(cells)):
        for i in range(j + 1):
            measurable = not np.isnan(cells[j, i])
            text = f"{cells[j, i]:.2f}" if measurable else "not\nmeasurable"
            dark = measurable and cells[j, i] > 0.6
            axes.text(
                i, j, text, ha="center", va="center", fontsize=11 if measurable else 7,
                color="white" if dark else _INK,
            )  # fmt: skip


def history_png(matrix: AccuracyMatrix, groups: Mapping[str, str] | None = None) -> bytes:
    """One small plot per task: its score in every version since it was learnt, with 95 % intervals of the score.

    The dashed line is its anchor, the score when it was learnt. Without per-row scores there are no intervals.
    Of many tasks those that lost most since then are shown, in the order in which they were learnt.
    """
    names = list(matrix.tasks)
    tasks = sorted(sorted(range(len(names)), key=lambda i: -_loss_of(matrix, i))[:_HISTORIES])
    columns = min(4, max(1, len(tasks)))
    lines = max(1, -(-len(tasks) // columns))
    figure = _figure(width=max(4.6, 2.9 * columns), height=2.15 * lines + 0.9)
    for place, axes in enumerate(figure.subplots(lines, columns, squeeze=False, sharey=True).flat):
        if place >= len(tasks):
            axes.set_visible(False)
            continue
        i = tasks[place]
        versions = range(i + 1, len(names) + 1)
        scores = [(v, row[i]) for v, row in zip(versions, matrix.rows[i:], strict=True) if row[i] is not None]
        title = _short(names[i], 24) + (f"  ({_plain(groups[names[i]])})" if groups and names[i] in groups else "")
        axes.set_title(title, fontsize=9)
        axes.set_xlim(0.6, len(names) + 0.4)
        axes.set_ylim(-0.03, 1.03)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.tick_params(labelsize=8)
        _grid(axes)
        if not scores:
            axes.text(0.5, 0.5, "not measurable", transform=axes.transAxes, ha="center", color=_INK, fontsize=9)
            continue
        xs, ys = zip(*scores, strict=True)
        axes.axhline(ys[0], color=_ORANGE, linestyle="--", linewidth=1)
        if matrix.scores is not None:
            rows = [len(matrix.scores[v - 1][i]) for v in xs]
            bands = [wilson_interval(y * n, n) for y, n in zip(ys, rows, strict=True)]
            axes.fill_between(xs, [b.low for b in bands], [b.high for b in bands], color=_BLUE, alpha=0.18, linewidth=0)
        axes.plot(xs, ys, color=_BLUE, marker="o", markersize=3.5, linewidth=1.4)
    which = "each task" if len(tasks) == len(names) else f"the {len(tasks)} tasks of {len(names)} that lost most"
    figure.suptitle(f"Score of {which} over the versions  (dashed: when it was learnt)", fontsize=11)
    figure.supxlabel("version along the lineage", fontsize=9)
    figure.supylabel("score on the test rows", fontsize=9)
    return _png(figure)


def _loss_of(matrix: AccuracyMatrix, task: int) -> float:
    """A task's first score minus its newest one; 0 if fewer than two are known."""
    scores = [score for row in matrix.rows[task:] if (score := row[task]) is not None]
    return scores[0] - scores[-1] if scores else 0.0


def curve_png(
    points: Sequence[tuple[str, float, float]], choice: str, margin: float | None = None, drop: str = "average"
) -> bytes:
    """The stability-plasticity curve of one tuning run on validation data.

    Each point is `(name, score of the new task, drop of the prior tasks)`, fractions; `margin` is the drop allowed,
    `drop` says whether it is their average or the largest. A line joins the mixes of one share, from the parent's side
    to the live weights.
    """
    figure = _figure(width=7.2, height=5.2)
    axes = figure.subplots()
    place = {name: (x, y) for name, x, y in points}
    mixes = sorted((float(n[4:]), place[n]) for n in place if re.fullmatch(r"mix-\d+(\.\d+)?", n))
    line = [xy for _, xy in mixes] + ([place["live"]] if mixes and "live" in place else [])
    axes.plot([x for x, _ in line], [y for _, y in line], color=_PALE, linewidth=1.2, zorder=1)
    rest = list(place)
    for kind, pattern, marker, color in _KINDS:
        names = [name for name in rest if re.fullmatch(pattern, name, re.DOTALL)]
        rest = [name for name in rest if name not in names]
        if names:
            xs, ys = zip(*(place[name] for name in names), strict=True)
            axes.scatter(xs, ys, s=34, marker=marker, color=color, label=kind, zorder=2)
    x, y = place[choice]
    star = f"chosen: {_plain(choice)}"
    axes.scatter([x], [y], s=210, marker="*", color=_ORANGE, edgecolors="white", label=star, zorder=3)
    axes.margins(x=0.16, y=0.16)
    if margin is not None:
        axes.axhline(margin, color=_ORANGE, linestyle="--", linewidth=1, label=f"allowed drop, {margin:g}")
    low, high = axes.get_ylim()
    if margin is not None and margin < high:
        axes.axhspan(margin, high, color=_ORANGE, alpha=0.06, linewidth=0, zorder=0)
    axes.set_ylim(low, high)
    axes.set_title("Stability and plasticity of the tuned adapters, on validation rows", fontsize=11)
    axes.set_xlabel("score of the new task  (right: learnt more)")
    earlier = "average drop of the earlier tasks" if drop == "average" else "largest drop of an earlier task"
    axes.set_ylabel(f"{earlier}  (up: forgot more)")
    axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    _grid(axes)
    together: dict[tuple[float, float], list[str]] = {}
    for name, x, y in points:
        together.setdefault((round(x, 4), round(y, 4)), []).append(name)
    order = sorted(together.items(), key=lambda item: choice not in item[1])
    _label(figure, [(xy, sorted(names, key=lambda n: n != choice), choice in names) for xy, names in order])
    return _png(figure)


def loss_png(losses: Sequence[float], old: Sequence[float | None] = ()) -> bytes:
    """Training loss per optimizer step, over all its rows and over those of earlier tasks (None without any)."""
    import numpy as np

    figure = _figure(width=6.8, height=3.2)
    axes = figure.subplots()
    window = max(1, round(len(losses) / 15))
    suffix = f", mean of {window} steps" if window > 1 else ""
    series = [("all rows", losses, _BLUE)]
    if old:
        series.append(("rows of earlier tasks", [np.nan if x is None else x for x in old], _ORANGE))
    for label, values, color in series:
        steps, numbers = np.arange(1, len(values) + 1), np.asarray(values, dtype=float)
        axes.plot(steps, numbers, ".", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
        axes.plot(steps, _running_mean(numbers, window), color=color, linewidth=1.6, label=f"{label}{suffix}")
    axes.set_ylim(bottom=0)
    axes.set_title("Training loss", fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("loss (nats per answer token)")
    axes.legend(frameon=False, fontsize=8.5)
    _grid(axes)
    return _png(figure)


def beta_png(history: Mapping[str, Sequence[float]], steps: int) -> bytes:
    """Beta over the optimizer steps: median and 10-90 % band over tensors; see `DynamicEMA.history`."""
    figure = _figure(width=6.8, height=3.2)
    axes = figure.subplots()
    x = _places(len(history["beta_median"]), steps)
    axes.fill_between(
        x, history["beta_low"], history["beta_high"], color=_BLUE, alpha=0.2, linewidth=0,
        label="10 to 90 % of the tensors",
    )  # fmt: skip
    axes.plot(x, history["beta_median"], color=_BLUE, linewidth=1.6, label="median tensor")
    axes.set_title("Beta: how strongly the old weights are held on to", fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("beta (0: plain tuning, 1: stand still)")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.legend(frameon=False, fontsize=8.5)
    _grid(axes)
    return _png(figure)


def distance_png(history: Mapping[str, Sequence[float]], steps: int, what: str) -> bytes:
    """L1 distance over the optimizer steps; `what` names the two points it lies between."""
    figure = _figure(width=6.8, height=3.0)
    axes = figure.subplots()
    axes.plot(_places(len(history["distance"]), steps), history["distance"], color=_BLUE, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_title(f"Distance between {what}", fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylabel("L1 norm, all tensors")
    _grid(axes)
    return _png(figure)


def _places(entries: int, steps: int) -> list[float]:
    """The middle step of each entry of a history that holds the mean of 1, 2, 4, ... steps per entry."""
    stride = 1
    while entries * stride < steps:
        stride *= 2
    return [(i * stride + 1 + min(steps, (i + 1) * stride)) / 2 for i in range(entries)]


def _running_mean(values: Any, window: int) -> Any:  # noqa: ANN401  numpy arrays
    """Mean of the known values among the `window` nearest ones; nan where none is known."""
    import numpy as np

    present = ~np.isnan(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(present, values, 0), present))
    first = np.clip(np.arange(len(values)) - window // 2, 0, None)
    last = np.clip(first + window, None, len(values))
    with np.errstate(invalid="ignore"):
        return (sums[last] - sums[first]) / (counts[last] - counts[first])


def _label(figure: "Figure", labels: Sequence[tuple[tuple[float, float], Sequence[str], bool]]) -> None:
    """Name each point `(place, names, chosen)` so that the text covers no point and no other text, if there is room."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    axes, renderer = figure.axes[0], figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw_without_rendering()  # lays the axes out, so that points have their places in pixels
    edge = axes.get_window_extent()
    obstacles = [
        Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in (axes.transData.transform(p) for p, _, _ in labels)
    ]
    for place, names, is_choice in labels:
        text = _plain(textwrap.fill(", ".join(names), 34))
        for distance, (right, up) in product(_DISTANCES, _DIRECTIONS):
            note = axes.annotate(
                text, place, (right * distance, up * distance), textcoords="offset points", fontsize=8.5,
                ha={1: "left", 0: "center", -1: "right"}[right], va={1: "bottom", 0: "center", -1: "top"}[up],
                color=_ORANGE if is_choice else _INK,
                arrowprops={"arrowstyle": "-", "color": _PALE, "linewidth": 0.8} if distance > _DISTANCES[0] else None,
            )  # fmt: skip
            note.set_in_layout(False)
            note.update_positions(renderer)
            box = Text.get_window_extent(note, renderer)  # the text alone, without its line
            inside = edge.x0 < box.x0 and box.x1 < edge.x1 and edge.y0 < box.y0 and box.y1 < edge.y1
            if inside and not any(box.overlaps(other) for other in obstacles):
                break
            note.remove()
        else:
            note = axes.annotate(text, place, (8, 0), textcoords="offset points", fontsize=8.5, va="center")
            note.set_in_layout(False)
            box = Text.get_window_extent(note, renderer)
        obstacles.append(box)


def _figure(width: float, height: float) -> "Figure":
    """A figure without pyplot, so that nothing global is kept and no display is looked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _grid(axes: Any) -> None:  # noqa: ANN401  matplotlib is untyped here
    axes.grid(color="#e3e8ee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _short(name: str, limit: int = 20) -> str:
    return _plain(name if len(name) <= limit else name[: limit - 1] + "…")


def _plain(text: str) -> str:
    """Text that matplotlib draws as it stands: `$` would start a formula."""
    return text.replace("$", r"\$")
