"""Self-contained HTML pages for people: inline style, everything escaped, nothing fetched."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from components.visible import visible


def page_text(value: object) -> object:
    """A value as pages show it: text of packages and people can't reverse a line or hide in it."""
    if not isinstance(value, str):
        return value
    text = visible(value, lines=True)
    return Markup(text) if isinstance(value, Markup) else text  # noqa: S704 - it was markup before


_ENVIRONMENT = Environment(
    autoescape=True, finalize=page_text, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)

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
.pass, .reuse, .open, .known, .related { background: #ddf3e4; color: #14532d; }
.fail, .refuse, .extreme { background: #fbe0dd; color: #7f1d1d; }
.inconclusive, .hold, .warn { background: #fdeecb; color: #6b4a00; }
.info, .new { background: #e8edf3; color: #33414f; }
img, svg { max-width: 100%; height: auto; }
tr.bad td:first-child, tr.doubt td:first-child, tr.good td:first-child { padding-left: .6rem; }
tr.bad td:first-child { box-shadow: inset 3px 0 #cf222e; }
tr.doubt td:first-child { box-shadow: inset 3px 0 #d4a72c; }
tr.good td:first-child { box-shadow: inset 3px 0 #4ac26b; }
</style></head><body>
<h1>{{ title }}</h1>
{{ body }}
</body></html>
""")

_CHECKS = """
<p><span class="v {{ verdict }}">{{ verdict }}</span></p>
{% for line in words %}<p>{{ line }}</p>
{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2>
{% if table.note %}<p class="note">{{ table.note }}</p>
{% endif %}
{% if table.rows %}<table>
<thead><tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr{% if row.mark %} class="{{ row.mark }}"{% endif %}>
{%- for cell in row.cells %}<td class="x">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table>
{% endif %}
{% endfor %}
"""


@dataclass(frozen=True)
class PageRow:
    """Cells of a table row, and its mark: `good`, `doubt`, `bad` or none."""

    cells: Sequence[str]
    mark: str = ""


@dataclass(frozen=True)
class PageTable:
    """A titled table; without rows a page shows only its title and note."""

    title: str
    head: Sequence[str]
    rows: Sequence[PageRow] = field(default_factory=tuple)
    note: str = ""


def page(title: str, body: Markup) -> str:
    """A self-contained HTML page around `body`; the title is escaped."""
    return _PAGE.render(title=title, body=body)


def fragment(source: str, **values: Any) -> Markup:  # noqa: ANN401  template values are of any type
    """Render a template with every value escaped."""
    return Markup(_ENVIRONMENT.from_string(source).render(**values))  # noqa: S704  autoescape is on


def verdict_page(title: str, verdict: str, words: Sequence[str], tables: Sequence[PageTable]) -> str:
    """A page with a verdict, the words that explain it, and tables."""
    return page(title, fragment(_CHECKS, verdict=verdict, words=words, tables=tables))
