"""The grouping decision as a page for people."""

from collections.abc import Sequence

from components.grouping.map import MapPoint, map_svg
from components.grouping.router import GroupingDecision
from components.pages import fragment, page

_GROUPING = """
<p><span class="v {{ d.action }}">{{ d.action }}</span> {{ d.words }}</p>
<p class="note">Similarity is the cosine of two tasks' {{ meaning }}. A task joins a group from
{{ "%.2f"|format(d.threshold + d.review_band) }}, opens one up to
{{ "%.2f"|format(d.threshold - d.review_band) }}, and between the two a person decides.</p>
{% if d.scores %}
<h2>Groups</h2>
<svg viewBox="0 0 600 {{ 30 * d.scores|length + 24 }}" role="img" aria-label="similarity to each group"
width="600">
{% for s in d.scores %}
  <text x="0" y="{{ 30 * loop.index0 + 19 }}" font-size="13">{{ s.group }} ({{ s.nearest_task|truncate(22)
  }})</text>
  <rect x="210" y="{{ 30 * loop.index0 + 5 }}" width="{{ "%.1f"|format(330 * s.similarity) }}" height="20"
    fill="{{ "#3a7d5c" if s.group == d.group else "#9fb0c0" }}"></rect>
  <text x="{{ "%.1f"|format(216 + 330 * s.similarity) }}" y="{{ 30 * loop.index0 + 19 }}"
    font-size="12">{{ "%.2f"|format(s.similarity) }}</text>
{% endfor %}
  <rect x="{{ "%.1f"|format(210 + 330 * (d.threshold - d.review_band)) }}" y="0"
    width="{{ "%.1f"|format(660 * d.review_band) }}" height="{{ 30 * d.scores|length }}"
    fill="#e8b93f" opacity=".35"></rect>
  <text x="{{ "%.1f"|format(210 + 330 * d.threshold) }}" y="{{ 30 * d.scores|length + 16 }}" font-size="11"
    text-anchor="middle" fill="#6b4a00">review band</text>
</svg>
{% if map %}<h2>Map of the tasks</h2>{{ map }}{% endif %}
<h2>Instructions</h2>
<table><tr><th>instruction</th><th>nearest group</th><th class="n">similarity</th><th
class="n">runner-up</th></tr>
{% for m in d.per_instruction[:shown] %}
<tr><td class="x">{{ m.instruction }}</td><td>{{ m.group or "none" }}</td><td class="n">{{ "%.2f"|format(m.similarity)
}}</td>
<td class="n">{{ "%.2f"|format(m.runner_up) }}</td></tr>
{% endfor %}
</table>
{% if d.per_instruction|length > shown %}
<p class="note">{{ d.per_instruction|length - shown }} more instructions are not shown.</p>
{% endif %}
{% endif %}
"""


_MEANING = {
    "tfidf": "TF-IDF centroids: 1 for the same instructions, 0 for no word in common",
    "embedding": "mean sentence embeddings: 1 for the same instructions",
}


def grouping_html(
    decision: GroupingDecision, task: str = "the task", points: Sequence[MapPoint] = (), limit: int = 50
) -> str:
    """Why a task joins a group, opens one or waits for a person; `points` is its map among the pool's tasks.

    At most `shown` instructions are listed.
    """
    body = fragment(_GROUPING, d=decision, meaning=_MEANING[decision.encoder], map=map_svg(points), shown=limit)
    return page(f"Grouping of {task}", body)
