"""Templates: everything is escaped, and every text goes through the reader's catalogue."""

import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.pages import page_text
from lcia.console import labels, svg
from lcia.console.language import LANGUAGES, catalogue

HERE = Path(__file__).parent
STATIC = HERE / "static"


@cache
def environment(language: str, root: str = "") -> Environment:
    """The templates in one language, for a service whose addresses begin with `root`."""
    jinja = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=page_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n", "jinja2.ext.do"],
    )
    translations = catalogue(language)
    jinja.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]
    say = translations.gettext
    jinja.filters.update(
        time=time,
        score=score,
        signed=with_sign,
        percent=percent,
        short=short,
        duration=lambda seconds: labels.duration(say, seconds),
        said=lambda name: labels.word_for(say, name),
        explained=lambda name: labels.hint_for(say, name),
        gate_row=lambda row: labels.gate_row(say, row),
    )
    jinja.globals.update(draw=svg, root=root, static=lambda name: root + static(name), languages=LANGUAGES)
    return jinja


def time(moment: datetime | str | None) -> Markup:
    """A time that the reader's browser shows in its own zone; in UTC where no script runs."""
    if moment is None or moment == "":
        return Markup("&ndash;")
    at = (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).astimezone(UTC)
    text = at.strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}">{}</time>').format(at.strftime("%Y-%m-%dT%H:%M:%SZ"), text)


def score(value: float | None) -> str:
    """A share of right answers, or a loss of it; minus as people print it."""
    return labels.UNKNOWN if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def with_sign(value: float | None) -> str:
    """A difference, with its sign; minus as people print it."""
    return labels.UNKNOWN if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return labels.UNKNOWN if value is None else f"{100 * value:.1f} %"


def short(digest: str | None) -> Markup:
    """The beginning of a digest; the whole of it in the title."""
    return Markup('<code title="{}">{}</code>').format(digest, digest[:12]) if digest else Markup("&ndash;")


@cache
def static(name: str) -> str:
    """Address of a file of `static`, which changes with its content."""
    content = (STATIC / name).read_bytes()
    return f"/static/{name}?{hashlib.sha256(content).hexdigest()[:12]}"


def render(language: str, template: str, values: dict[str, Any], root: str = "") -> str:
    """One template with `values`; its links begin with `root`."""
    return environment(language, root).get_template(template).render(**values)
