"""The reader's language: gettext catalogues, read from their `.po` files when the process starts."""

import gettext
import io
from functools import cache
from pathlib import Path

from babel.core import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from fastapi import Request

LANGUAGES = {"en": "English", "ja": "日本語"}
"""Code -> what it is called in itself; the first is that of the sources."""
SOURCE = next(iter(LANGUAGES))
COOKIE = "lcia_language"
FOLDER = Path(__file__).parent / "locale"


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The messages of one of `LANGUAGES`."""
    if language == SOURCE:
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    with (FOLDER / language / "LC_MESSAGES" / "console.po").open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def chosen(request: Request) -> str:
    """What the reader chose, else what their browser asks for, else the sources' own."""
    cookie = request.cookies.get(COOKIE)
    if cookie in LANGUAGES:
        return cookie
    weighed = []
    for part in request.headers.get("accept-language", "").split(","):
        name, _, weight = part.partition(";q=")
        weighed.append((-_number(weight), name.strip()))
    wanted = [name for _, name in sorted(weighed, key=lambda pair: pair[0]) if name]
    return negotiate_locale(wanted, list(LANGUAGES), sep="-") or SOURCE


def _number(weight: str) -> float:
    try:
        return float(weight) if weight else 1.0
    except ValueError:
        return 0.0
