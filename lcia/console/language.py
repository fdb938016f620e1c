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
"""Code -> what it is called in itself; the first is that of the sources."""
SOURCE = next(iter(LANGUAGES))
COOKIE = "lcia_language"
FOLDER = Path(__file__).parent / "locale"


class Texts(gettext.GNUTranslations):
    """A catalogue in which nothing stays nothing: gettext has its header under the empty text."""

    def gettext(self, message: str) -> str:
        """What a message is in this language."""
        return super().gettext(message) if message else ""


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The messages of one of `LANGUAGES`."""
    if language == SOURCE:
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    with (FOLDER / language / "LC_MESSAGES" / "console.po").open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return Texts(compiled)


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


def marked(file: BinaryIO, *_: object, **__: object) -> Iterator[tuple[int, None, str, list[str]]]:
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
