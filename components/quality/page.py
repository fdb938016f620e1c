"""Small self-contained HTML pages for people: inline style, everything escaped, nothing fetched."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, StrictUndefined

VERDICT_COLOURS = {
    "pass": "#1a7f37",
    "known": "#1a7f37",
    "related": "#1a7f37",
    "new": "#0969da",
    "warn": "#9a6700",
    "refuse": "#cf222e",
    "extreme": "#cf222e",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .4rem 0; max-width: 48rem; }
.verdict { display: inline-block; color: #fff; border-radius: 1rem; padding: .1rem .8rem; font-weight: 600; }
.quiet { color: #59636e; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #d1d9e0;
  overflow-wrap: anywhere; }
th { color: #59636e; font-weight: 600; font-size: .85rem; white-space: nowrap; }
tr.bad td:first-child { box-shadow: inset 3px 0 #cf222e; }
tr.doubt td:first-child { box-shadow: inset 3px 0 #d4a72c; }
tr.good td:first-child { box-shadow: inset 3px 0 #4ac26b; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p><span class="verdict" style="background: {{ colour }}">{{ verdict }}</span></p>
{% for line in words %}<p>{{ line }}</p>
{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2>
{% if table.note %}<p class="quiet">{{ table.note }}</p>
{% endif %}{% if table.rows %}<table>
<thead><tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr{% if row.mark %} class="{{ row.mark }}"{% endif %}>
{%- for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table>
{% endif %}{% endfor %}
</body>
</html>
"""
_TEMPLATE = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=False, keep_trailing_newline=True
).from_string(_PAGE)


@dataclass(frozen=True)
class PageRow:
    """Cells of a table row and its mark: `good`, `doubt`, `bad` or none."""

    cells: Sequence[str]
    mark: str = ""


@dataclass(frozen=True)
class PageTable:
    """A titled table; without rows only title and note are shown."""

    title: str
    head: Sequence[str]
    rows: Sequence[PageRow] = field(default_factory=tuple)
    note: str = ""


def render_page(title: str, verdict: str, words: Sequence[str], tables: Sequence[PageTable]) -> str:
    """HTML text of a page; the verdict's colour follows from its word."""
    colour = VERDICT_COLOURS.get(verdict, "#59636e")
    return _TEMPLATE.render(title=title, verdict=verdict, colour=colour, words=words, tables=tables)
