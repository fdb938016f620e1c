"""The reader's language: gettext catalogues, read from their `.po` files when the process starts."""

import ast
import gettext
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

from babel.core import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from fastapi import Request

LANGUAGES = {"en": "English", "ja": "日本語"}
"""Code -> name of the language in itself; the first is that of the sources."""
SOURCE = next(iter(LANGUAGES))
COOKIE = "lcia_language"
FOLDER = Path(__file__).parent / "locale"


class Texts(gettext.GNUTranslations):
    """A catalogue in which the empty text stays empty: gettext has its header under it."""

    def gettext(self, message: str) -> str:
        """A message in this language."""
        return super().gettext(message) if message else ""


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The messages of one of `LANGUAGES`."""
    if language == SOURCE:
        return gettext.NullTranslations()
    buffer = io.BytesIO()
    with (FOLDER / language / "LC_MESSAGES" / "console.po").open("rb") as file:
        write_mo(buffer, read_po(file, locale=language))
    buffer.seek(0)
    return Texts(buffer)


def language_of(request: Request) -> str:
    """Code of the language that the reader chose, else of one that their browser asks for, else of the sources."""
    cookie = request.cookies.get(COOKIE)
    if cookie in LANGUAGES:
        return cookie
    preferences = []
    for part in request.headers.get("accept-language", "").split(","):
        name, _, weight = part.partition(";q=")
        preferences.append((-_number(weight), name.strip()))
    names = [name for _, name in sorted(preferences, key=lambda pair: pair[0]) if name]
    return negotiate_locale(names, list(LANGUAGES), sep="-") or SOURCE


def _number(weight: str) -> float:
    try:
        return float(weight) if weight else 1.0
    except ValueError:
        return 0.0


def messages_in(file: BinaryIO, *_: object, **__: object) -> Iterator[tuple[int, None, str, list[str]]]:
    """The messages in a Python file, as Babel wants them: `_("...")`, and the title and the hint of every `Column`."""
    for node in ast.walk(ast.parse(file.read())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "_":
                texts = node.args
            elif node.func.id == "Column":
                texts = [*node.args[1:2], *(one.value for one in node.keywords if one.arg in ("title", "hint"))]
            else:
                continue
            for text in texts:
                if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value:
                    yield text.lineno, None, text.value, []
