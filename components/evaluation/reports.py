"""Pages for people: evaluation and gate.

Pages hold their pictures and styles, reach for nothing outside, and escape every text.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.evaluation.accuracy_matrix import AccuracyMatrix, PartFigures
from components.evaluation.pictures import heat_map_png, history_png
from components.pages import fragment, page
from components.proportions import Interval, wilson_interval


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
    images: Sequence[str] = ()
    """Digests of what the row shows, in its order."""


@dataclass(frozen=True)
class FlipCount:
    """Counts of test rows of a prior task that a candidate lost and won against the champion.

    A lost row is a negative flip: right before and wrong now (Yan et al. 2021, arXiv 2011.09161).
    """

    task: str
    rows: int
    lost: int
    won: int

    @property
    def negative(self) -> Interval:
        """Share of the rows that were lost, with its two-sided 95 % interval."""
        return wilson_interval(self.lost, self.rows)


def evaluation_html(
    matrix: AccuracyMatrix,
    *,
    title: str = "Evaluation",
    groups: Mapping[str, str] | None = None,
    flips: Sequence[FlipCount] = (),
    against_anchor: Mapping[str, Interval] | None = None,
    pictures: Sequence[tuple[str, bytes]] = (),
    notes: Sequence[str] = (),
    look: str = "",
) -> str:
    """Matrix, summary numbers, per-task table with intervals, flips as counts, more `(caption, PNG)` pictures.

    Everyone may see it, so it has no test row's text; `look` says how approvers get to see those. `groups` maps
    task names to group ids, `against_anchor` to the gain since the anchor.
    """
    names = {"avg_acc": "Avg.ACC", "new_acc": "New.ACC", "bwt": "BWT", "forgetting": "Forgetting"}
    summary = [(label, getattr(matrix, name), matrix.intervals.get(name)) for name, label in names.items()]
    body = fragment(
        _EVALUATION,
        summary=summary,
        parts=_parts(matrix, groups or {}),
        floor=matrix.forgetting_floor,
        heat_map=_data_uri(heat_map_png(matrix)) if matrix.tasks else None,
        history=_data_uri(history_png(matrix, groups)) if len(matrix.tasks) > 1 else None,
        changes=matrix.changes(),
        against_anchor=against_anchor or {},
        groups=groups or {},
        flips=flips,
        rows=sum(flip.rows for flip in flips),
        lost=sum(flip.lost for flip in flips),
        won=sum(flip.won for flip in flips),
        pictures=[(caption, _data_uri(png)) for caption, png in pictures],
        notes=notes,
        look=look,
    )
    return page(title, body)


def flips_html(
    flips: Sequence[Flip],
    title: str = "Changed predictions of prior tasks",
    images: Mapping[str, str] | None = None,
) -> str:
    """Every changed test row with its texts, lost ones first: for approvers only, as reading wears them out.

    `images` gives the PNG file of each digest in base64.
    """
    by_gain = sorted(flips, key=lambda flip: flip.score_after - flip.score_before)
    return page(title, fragment(_FLIPS, flips=by_gain, images=images or {}))


def _parts(matrix: AccuracyMatrix, groups: Mapping[str, str]) -> list[tuple[str, PartFigures]]:
    """Figures of the tasks that share a group and of those alone in theirs, if there are both."""
    sizes = Counter(groups.get(name) for name in matrix.tasks if name in groups)
    in_groups = [name for name in matrix.tasks if sizes[groups.get(name)] > 1]
    alone = [name for name in matrix.tasks if sizes[groups.get(name)] == 1]
    if not in_groups:
        return []
    kinds = [("tasks that share a group", in_groups), ("tasks alone in theirs", alone)]
    return [(label, matrix.part(names)) for label, names in kinds if names]


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
{% if parts %}
<table><tr><th></th><th class="n">tasks</th><th class="n">Avg.ACC</th><th class="n">BWT</th></tr>
{% for label, part in parts %}
<tr><td>{{ label }}</td><td class="n">{{ part.tasks|length }}</td>
<td class="n">{{ num(part.avg_acc) }}<br>
<span class="note">{{ bounds(part.intervals.get("avg_acc"), "%.3f") }}</span></td>
<td class="n">{% if part.bwt is not none %}{{ num(part.bwt, "%+.3f") }}<br>
<span class="note">{{ bounds(part.intervals.get("bwt")) }}</span>{% else %}no earlier task{% endif %}</td></tr>
{% endfor %}
</table>
<p class="note">An adapter that several tasks share can forget; one of its own cannot, so averages over
all tasks hide it.</p>
{% endif %}
{% for note in notes %}<p>{{ note }}</p>{% endfor %}
{% if heat_map %}<img src="{{ heat_map }}" alt="accuracy matrix as a heat map" width="620">{% endif %}
<h2>Tasks</h2>
<table><tr><th>task</th><th>group</th><th class="n">when learnt</th><th class="n">best before</th>
<th class="n">now</th><th class="n">against its anchor</th><th class="n">95 % interval</th></tr>
{% for c in changes %}
{% set gain = against_anchor.get(c.task, c.change) %}
<tr><td>{{ c.task }}</td><td>{{ groups.get(c.task, "") }}</td><td class="n">{{ num(c.first) }}</td>
<td class="n">{{ num(c.best) }}</td><td class="n">{{ num(c.last) }}</td>
<td class="n">{% if loop.last %}new{% elif gain %}{{ "%+.3f"|format(gain.value) }}{% endif %}</td>
<td class="n">{% if not loop.last %}{{ bounds(gain) }}{% endif %}</td></tr>
{% endfor %}
</table>
<p class="note">The anchor is the version that first promoted the task; below 0 it has lost since.</p>
{% if history %}<img src="{{ history }}" alt="score of each task over the versions">{% endif %}
{% for caption, uri in pictures %}
<h2>{{ caption }}</h2><img src="{{ uri }}" alt="{{ caption }}" width="560">
{% endfor %}
<h2>Changed predictions of prior tasks</h2>
{% if lost or won %}
<table><tr><th>task</th><th class="n">test rows</th><th class="n">lost</th><th class="n">won</th>
<th class="n">negative flips</th><th class="n">95 % interval</th></tr>
{% for f in flips if f.lost or f.won %}
<tr><td>{{ f.task }}</td><td class="n">{{ f.rows }}</td><td class="n">{{ f.lost }}</td><td class="n">{{ f.won }}</td>
<td class="n">{{ "%.3f"|format(f.negative.value) }}</td><td class="n">{{ bounds(f.negative, "%.3f") }}</td></tr>
{% endfor %}
</table>
<p class="note">{{ lost }} lost and {{ won }} won of {{ rows }} test rows against the champion. A lost row scored better
before (with scores of 0 and 1: right before and wrong now, a negative flip).
{% if look %}The rows themselves are for approvers: {{ look }}.{% endif %}</p>
{% else %}<p>No score of a prior task's test row changed.</p>{% endif %}
"""

_FLIPS = """
<p>{{ flips|length }} test rows changed their score. Reading them is recorded: what is tuned on them can no longer be
tested on them.</p>
{% if flips %}
<table><tr><th>task</th><th>prompt</th><th>expected</th><th>before</th><th>after</th><th></th></tr>
{% for f in flips %}
<tr><td>{{ f.task }}</td>
<td class="x">{% for one in f.images %}<img style="max-height: 12rem" src="data:image/png;base64,{{ images[one] }}"
 alt="image {{ loop.index }} of {{ loop.length }} of row {{ f.row[:12] }}">
{% endfor %}{{ f.prompt|truncate(400) }}</td>
{% for text in (f.expected, f.before, f.after) %}<td class="x">{{ text|truncate(400) }}</td>{% endfor %}
<td>{% if f.score_after < f.score_before %}<span class="v fail">lost</span>
{% else %}<span class="v pass">won</span>{% endif %}</td></tr>
{% endfor %}
</table>
{% endif %}
"""

_GATE = """
{% macro num(x, f) %}{% if x is not none %}{{ f|format(x) }}{% endif %}{% endmacro %}
<p><span class="v {{ report.verdict }}">{{ report.verdict }}</span>
attempt {{ report.attempt }}, bounds one-sided at {{ "%.1f"|format(100 * (1 - report.alpha)) }} % confidence
where a row does not say more.
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
Pass: the high bound is inside the limit. Fail: beyond it with confidence. Otherwise inconclusive.
A later look at the same anchor, and a second look that opens the reserve, need more confidence; the row says how
much.</p>
"""
