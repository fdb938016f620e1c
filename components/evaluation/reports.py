"""Pages for people: evaluation and gate.

Pages hold their pictures and styles, reach for nothing outside, and escape every text.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.evaluation.matrix import AccuracyMatrix
from components.evaluation.pictures import heat_map_png
from components.pages import fragment, page


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


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


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
