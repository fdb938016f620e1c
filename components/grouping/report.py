"""The grouping decision as a page for people; also the plain page that other reports are made of."""

from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from components.grouping.router import GroupingDecision

_ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

_PAGE = _ENVIRONMENT.from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src
data:">
<style>
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1d2733; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.45rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
p { margin: .3rem 0 .7rem; } .note { color: #5b6875; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 1rem; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid #e3e8ee; vertical-align:
top; }
th { font-weight: 600; color: #45525f; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td { overflow-wrap: break-word; } td.x { overflow-wrap: anywhere; min-width: 5.5rem; }
td.t, td.n { white-space: nowrap; }
.v { display: inline-block; padding: 0 .5rem; border-radius: .8rem; white-space: nowrap; font-weight: 600; }
.pass, .reuse, .open { background: #ddf3e4; color: #14532d; } .fail { background: #fbe0dd; color: #7f1d1d; }
.inconclusive, .hold { background: #fdeecb; color: #6b4a00; } .info { background: #e8edf3; color: #33414f; }
img, svg { max-width: 100%; height: auto; }
</style></head><body>
<h1>{{ title }}</h1>
{{ body }}
</body></html>
""")

_GROUPING = _ENVIRONMENT.from_string("""
<p><span class="v {{ d.action }}">{{ d.action }}</span> {{ d.words }}</p>
<p class="note">Similarity is the cosine of two tasks' TF-IDF centroids: 1 for the same instructions, 0 for
no word in common. A task joins a group from {{ "%.2f"|format(d.threshold + d.review_band) }}, opens one up to
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
""")


def page(title: str, body: Markup) -> str:
    """A self-contained HTML page around `body`; the title is escaped."""
    return _PAGE.render(title=title, body=body)


def fragment(source: str, **values: Any) -> Markup:  # noqa: ANN401  template values are of any type
    """Render a template with every value escaped."""
    return Markup(_ENVIRONMENT.from_string(source).render(**values))  # noqa: S704  autoescape is on


def grouping_html(decision: GroupingDecision, task: str = "the task", shown: int = 50) -> str:
    """Why a task joins a group, opens one or waits for a person; at most `shown` instructions are listed."""
    body = Markup(_GROUPING.render(d=decision, shown=shown))  # noqa: S704  autoescape is on
    return page(f"Grouping of {task}", body)
