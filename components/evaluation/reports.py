"""Pictures and pages for people: accuracy matrix, stability-plasticity curve, EMA decay, evaluation and gate.

Pages hold their pictures and styles, reach for nothing outside, and escape every text.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.evaluation.matrix import AccuracyMatrix
from components.pages import fragment, page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 130


@dataclass(frozen=True)
class Flip:
    """One test row whose prediction changed: texts, and scores in [0, 1] before and after."""

    task: str
    row: str
    prompt: str
    expected: str
    before: str
    after: str
    score_before: float
    score_after: float


def heat_map_png(matrix: AccuracyMatrix) -> bytes:
    """The accuracy matrix as a heat map: a row per version, a column per task."""
    import numpy as np

    size = len(matrix.tasks)
    figure = _figure(width=max(4.6, 1.25 * size + 2.6), height=max(2.8, 0.62 * size + 1.6))
    axes = figure.subplots()
    cells = np.full((size, size), np.nan)
    for j, row in enumerate(matrix.rows):
        for i, cell in enumerate(row):
            cells[j, i] = np.nan if cell is None else cell
    image = axes.imshow(cells, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto")
    for j in range(size):
        for i in range(j + 1):
            known = not np.isnan(cells[j, i])
            text = f"{cells[j, i]:.2f}" if known else "not\nmeasurable"
            dark = known and cells[j, i] > 0.6
            axes.text(
                i, j, text, ha="center", va="center", fontsize=11 if known else 7,
                color="white" if dark else "#1d2733",
            )  # fmt: skip
    names = [_short(name) for name in matrix.tasks]
    axes.set_xticks(range(size), names, rotation=30 if size > 4 else 0, ha="right" if size > 4 else "center")
    axes.set_yticks(range(size), [f"after {name}" for name in names])
    axes.set_title("Score on each task after each task learnt", fontsize=11)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=8)
    return _png(figure)


def curve_png(points: Sequence[tuple[str, float, float]], chosen: str, margin: float | None = None) -> bytes:
    """The stability-plasticity curve of one tuning run on validation data.

    Each point is `(name, score of the new task, largest drop of a prior task)`, fractions; `margin` is the
    drop allowed.
    """
    figure = _figure(width=6.4, height=4.0)
    axes = figure.subplots()
    ordered = sorted(points, key=lambda point: point[1])
    axes.plot([x for _, x, _ in ordered], [y for _, _, y in ordered], color="#9fb0c0", zorder=1)
    labels: dict[tuple[float, float], list[str]] = {}
    for name, x, y in ordered:
        picked = name == chosen
        axes.scatter(
            [x], [y], s=90 if picked else 40, color="#c2410c" if picked else "#33658a",
            marker="*" if picked else "o", zorder=3 if picked else 2,
        )  # fmt: skip
        labels.setdefault((round(x, 3), round(y, 3)), []).append(f"{name} (chosen)" if picked else name)
    for (x, y), names in labels.items():
        axes.annotate(", ".join(map(_plain, names)), (x, y), textcoords="offset points", xytext=(7, 6), fontsize=9)
    if margin is not None:
        axes.axhline(margin, color="#c2410c", linestyle="--", linewidth=1)
        axes.annotate(
            f"allowed drop {margin:.2f}", (0.01, margin), xycoords=("axes fraction", "data"), ha="left",
            textcoords="offset points", xytext=(0, 4), fontsize=8, color="#c2410c",
        )  # fmt: skip
    axes.set_xlabel("score of the new task (validation)")
    axes.set_ylabel("largest drop of a prior task")
    axes.margins(x=0.22, y=0.18)
    _grid(axes)
    return _png(figure)


def beta_png(history: Sequence[tuple[int, float, float, float]]) -> bytes:
    """The EMA's decay beta over the steps: `(step, low, median, high)` over the adapter's tensors."""
    figure = _figure(width=6.4, height=3.2)
    axes = figure.subplots()
    steps = [step for step, *_ in history]
    axes.fill_between(
        steps, [low for _, low, _, _ in history], [high for *_, high in history], color="#33658a", alpha=0.2,
        linewidth=0, label="range",
    )  # fmt: skip
    axes.plot(steps, [median for _, _, median, _ in history], color="#33658a", label="median")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("beta of the EMA")
    axes.legend(frameon=False, fontsize=9, loc="best")
    _grid(axes)
    return _png(figure)


def loss_png(losses: Sequence[float]) -> bytes:
    """Training loss per optimizer step."""
    figure = _figure(width=6.4, height=2.8)
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, color="#33658a", linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per token)")
    _grid(axes)
    return _png(figure)


def evaluation_html(
    matrix: AccuracyMatrix,
    *,
    title: str = "Evaluation",
    groups: Mapping[str, str] | None = None,
    flips: Sequence[Flip] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    notes: Sequence[str] = (),
    shown: int = 40,
) -> str:
    """Matrix, summary numbers and per-task table with intervals, more `(caption, PNG)` pictures, and flips.

    `groups` maps task names to group ids. At most `shown` flips are listed, lost rows first.
    """
    names = {"avg_acc": "Avg.ACC", "new_acc": "New.ACC", "bwt": "BWT", "forgetting": "Forgetting"}
    summary = [(label, getattr(matrix, name), matrix.intervals.get(name)) for name, label in names.items()]
    ordered = sorted(flips, key=lambda flip: flip.score_after - flip.score_before)
    body = fragment(
        _EVALUATION,
        summary=summary,
        floor=matrix.forgetting_floor,
        heat_map=_data_uri(heat_map_png(matrix)) if matrix.tasks else None,
        changes=matrix.changes(),
        groups=groups or {},
        flips=ordered[:shown],
        all_flips=len(ordered),
        lost=sum(flip.score_after < flip.score_before for flip in ordered),
        won=sum(flip.score_after > flip.score_before for flip in ordered),
        pictures=[(caption, _data_uri(png)) for caption, png in pictures],
        notes=notes,
    )
    return page(title, body)


def gate_html(report: Mapping[str, Any], title: str = "Gate") -> str:
    """The gate's verdict and rows; `report` is `GateReport.to_json()`."""
    return page(title, fragment(_GATE, report=report))


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


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _short(name: str, limit: int = 20) -> str:
    return _plain(name if len(name) <= limit else name[: limit - 1] + "…")


def _plain(text: str) -> str:
    """Text that matplotlib draws as it stands: `$` would start a formula."""
    return text.replace("$", r"\$")


_EVALUATION = """
{% macro bounds(x, f="%+.3f") %}{% if x %}{{ f|format(x.low) }} to {{ f|format(x.high) }}{% endif %}{% endmacro %}
{% macro num(x, f="%.3f") %}{{ f|format(x) if x is not none else "not measurable" }}{% endmacro %}
<table>
<tr>{% for name, _, _ in summary %}<th class="n">{{ name }}</th>{% endfor %}</tr>
<tr>
{% for name, value, interval in summary %}
{% set f = "%+.3f" if name in ("BWT", "Forgetting") else "%.3f" %}
<td class="n"><strong>{{ num(value, f) }}</strong><br><span class="note">{{ bounds(interval, f) }}</span></td>
{% endfor %}
</tr></table>
<p class="note">Intervals are 95 %, from resampling the test rows.
{% if floor %}Forgetting takes the best earlier version, so it would be about {{ "%.3f"|format(floor) }} without any
true change (5 % of hits flipping by chance).{% endif %}</p>
{% for note in notes %}<p>{{ note }}</p>{% endfor %}
{% if heat_map %}<img src="{{ heat_map }}" alt="accuracy matrix as a heat map" width="620">{% endif %}
<h2>Tasks</h2>
<table><tr><th>task</th><th>group</th><th class="n">when learnt</th><th class="n">best before</th>
<th class="n">now</th><th class="n">change since learnt</th><th class="n">95 % interval</th></tr>
{% for c in changes %}
<tr><td>{{ c.task }}</td><td>{{ groups.get(c.task, "") }}</td><td class="n">{{ num(c.first) }}</td>
<td class="n">{{ num(c.best) }}</td><td class="n">{{ num(c.last) }}</td>
<td class="n">{% if loop.last %}new{% elif c.change %}{{ "%+.3f"|format(c.change.value) }}{% endif %}</td>
<td class="n">{% if not loop.last %}{{ bounds(c.change) }}{% endif %}</td></tr>
{% endfor %}
</table>
{% for caption, uri in pictures %}
<h2>{{ caption }}</h2><img src="{{ uri }}" alt="{{ caption }}" width="560">
{% endfor %}
<h2>Changed predictions of prior tasks</h2>
{% if all_flips %}
<p>{{ all_flips }} predictions changed: {{ lost }} lost, {{ won }} won.
{% if all_flips > flips|length %}The first {{ flips|length }} are shown.{% endif %}</p>
<table><tr><th>task</th><th>prompt</th><th>expected</th><th>before</th><th>after</th><th></th></tr>
{% for f in flips %}
<tr><td>{{ f.task }}</td>
{% for text in (f.prompt, f.expected, f.before, f.after) %}<td class="x">{{ text|truncate(160) }}</td>{% endfor %}
<td>{% if f.score_after < f.score_before %}<span class="v fail">lost</span>
{% elif f.score_after > f.score_before %}<span class="v pass">won</span>
{% else %}<span class="v info">same score</span>{% endif %}</td></tr>
{% endfor %}
</table>
{% else %}<p>No prediction of a prior task changed.</p>{% endif %}
"""

_GATE = """
{% macro num(x, f) %}{% if x is not none %}{{ f|format(x) }}{% endif %}{% endmacro %}
<p><span class="v {{ report.verdict }}">{{ report.verdict }}</span>
attempt {{ report.attempt }}, every bound one-sided at {{ "%.1f"|format(100 * (1 - report.alpha)) }} % confidence.
{% if not report.enforced %}<strong>Not enforced: this policy only reports.</strong>{% endif %}</p>
<table><tr><th>rule</th><th>task</th><th>verdict</th><th class="n">value</th><th class="n">low</th>
<th class="n">high</th><th class="n">limit</th><th>in words</th></tr>
{% for r in report.rows %}
{% set f = "%g" if r.rule in ("attempts", "cost") else "%.3f" %}
<tr><td class="t">{{ r.rule }}</td><td>{{ r.task or "" }}</td>
<td><span class="v {{ r.verdict }}">{{ r.verdict }}</span></td>
{% for x in (r.value, r.low, r.high, r.limit) %}<td class="n">{{ num(x, f) }}</td>{% endfor %}
<td class="x">{{ r.words }}</td></tr>
{% endfor %}
</table>
<p class="note">A drop is the earlier score minus the candidate's: positive means forgotten.
Pass: the high bound is inside the limit. Fail: beyond it with confidence. Otherwise inconclusive.</p>
"""
