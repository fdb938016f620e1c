"""The page to try versions: one instruction, answered by two of them side by side."""

import difflib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from components.errors import LciaError
from components.model.image_support import may_see
from components.settings import Settings
from components.tasks.images import MAX_IMAGE_BYTES, MAX_PER_ROW, ImageRefused
from components.tasks.problems import printable
from lcia.console.base import Console, Reader, form_of
from lcia.inference.ask import pictures_of
from lcia.inference.gateway import GatewayAnswerer
from lcia.inference.process import Answerer, NoModelHere, answers_here
from lcia.instance import Instance
from lcia.operations import versions

BASE = "base"
"""Stands for the base model alone where a version is named."""
LONGEST = {"instruction": 4000, "input": 8000}
"""Characters of a text."""
LONGEST_NAME = 80
"""Characters of a file's name that are shown, the last ones."""
OFFERED = 100
"""Versions to choose from, the newest first; any other can be named in the address."""
_PIECES = re.compile(r"\s+|[\u3040-\u9fff]|[^\W\u3040-\u9fff]+|.", re.DOTALL)


class QuestionRefused(LciaError):
    """A question that is empty or too long."""


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer."""

    text: str
    differs: bool
    """The other answer has something else here, or nothing."""


@dataclass(frozen=True)
class Image:
    """An image that came with a question."""

    name: str
    width: int
    height: int
    file: bytes = field(repr=False)
    """As it was sent."""

    @property
    def kilobytes(self) -> int:
        """Size of the file, rounded up."""
        return -(-len(self.file) // 1000)

    @classmethod
    def all_of(cls, uploads: Sequence[UploadFile], settings: Settings) -> "list[Image]":
        """The images in uploads, checked like those of a task.

        Raises:
            ImageRefused: one is too large, or no image.
        """
        files = []
        for upload in uploads:
            name = printable(upload.filename or "")[-LONGEST_NAME:]
            if (upload.size or 0) > MAX_IMAGE_BYTES:
                raise ImageRefused(f"{name}: {upload.size} bytes", f"at most {MAX_IMAGE_BYTES} bytes")
            files.append((name, upload.file.read()))
        pictures = (picture.pixels() for picture in pictures_of(files, settings))
        sizes = [(int(pixels.shape[1]), int(pixels.shape[0])) for pixels in pictures]
        return [cls(name, *size, file) for (name, file), size in zip(files, sizes, strict=True)]


@dataclass(frozen=True)
class Side:
    """One of the two answers."""

    number: int | None
    """The version's; None: the base model alone."""
    pieces: Sequence[Piece]
    group: str | None
    similarity: float
    nearest_task: str | None


def routes(console: Console) -> APIRouter:
    """/try.

    Raises:
        NoModelHere: the settings promise answers that can't be given here.
    """
    router, instance = APIRouter(include_in_schema=False), console.instance
    answerer = _answerer(instance.settings)

    @router.get("/try")
    def empty(request: Request) -> Response:
        reader = console.reader(request)
        fields = {**_usual(instance), **request.query_params}
        return console.page(reader, "trying.html", **_form(instance, answerer, fields))

    @router.post("/try")
    async def ask(request: Request) -> Response:
        reader = await run_in_threadpool(console.reader, request)  # before anything large is read
        async with request.form() as form:
            fields = await form_of(request)
            files = [one for one in form.getlist("image") if isinstance(one, UploadFile) and one.filename]
            return await run_in_threadpool(_answer, console, answerer, reader, fields, files)

    return router


def _answerer(settings: Settings) -> Answerer | GatewayAnswerer | None:
    """A gateway, where the settings name one; else a process that holds the model; None: nobody can answer."""
    if settings.gateway.address:
        return GatewayAnswerer(settings)
    return Answerer(settings) if answers_here(settings.serve) else None


def _answer(
    console: Console,
    answerer: Answerer | GatewayAnswerer | None,
    reader: Reader,
    fields: Mapping[str, str],
    files: Sequence[UploadFile],
) -> Response:
    """The answers, in place where a script asks; else the page with them, or with why there are none."""
    request, instance = reader.request, console.instance
    values: dict[str, Any] = {"why": ""}
    status = 200
    try:
        values |= _ask(instance, answerer, fields, files)
    except LciaError as error:
        if request.headers.get("hx-request"):
            raise
        values["why"], status = str(error), 400
    if request.headers.get("hx-request"):
        return console.fragment(reader, "answers.html", **values)
    return console.page(reader, "trying.html", status, **{**_form(instance, answerer, fields), **values})


def _ask(
    instance: Instance,
    answerer: Answerer | GatewayAnswerer | None,
    fields: Mapping[str, str],
    files: Sequence[UploadFile],
) -> dict[str, Any]:
    """Both answers.

    Raises:
        NoModelHere, QuestionRefused, ImageRefused, CandidateUnknown, StatementRefused; see `Answerer.ask`.
    """
    if answerer is None:
        raise NoModelHere("this service holds no model, so nothing can be tried out here")
    instruction, text = (_text(fields, name) for name in LONGEST)
    if not instruction:
        raise QuestionRefused("there is no instruction; write what the assistant should do")
    if len(files) > MAX_PER_ROW:
        raise QuestionRefused(f"there are {len(files)} images, expected at most {MAX_PER_ROW}; leave some out")
    images = Image.all_of(files, instance.settings)
    references = [fields.get(side, BASE) for side in ("before", "after")]
    pair = [None if reference == BASE else versions.get(instance, reference) for reference in references]
    for version in pair:
        if version:
            instance.need_statement(version)
    began = time.monotonic()
    digests = [version.digest if version else None for version in pair]
    answers = answerer.ask(digests, instruction, text or None, [one.file for one in images])
    pieces = differing(*(answer["text"] for answer in answers))
    sides = [
        Side(
            version.number if version else None,
            stretches,
            answer["group"],
            answer["similarity"],
            answer["nearest_task"],
        )
        for version, stretches, answer in zip(pair, pieces, answers, strict=True)
    ]
    same = answers[0]["text"] == answers[1]["text"]
    return {"sides": sides, "same": same, "images": images, "seconds": time.monotonic() - began}


def differing(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Two texts in pieces that are in both, and pieces that are not; by words, in Japanese by characters."""
    words = _PIECES.findall(left), _PIECES.findall(right)
    sides: tuple[list[Piece], list[Piece]] = [], []
    for kind, *bounds in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, start, end in ((0, *bounds[:2]), (1, *bounds[2:])):
            if start < end:
                sides[side].append(Piece("".join(words[side][start:end]), kind != "equal"))
    return sides


def _text(fields: Mapping[str, str], name: str) -> str:
    text = fields.get(name, "").replace("\r\n", "\n").strip()  # what browsers make of a new line
    if len(text) > LONGEST[name]:
        raise QuestionRefused(f"the {name} has {len(text)} characters, expected at most {LONGEST[name]}; shorten it")
    return text


def _usual(instance: Instance) -> dict[str, str]:
    """The champion beside the newest version that waits for people, or beside the base model."""
    now = versions.champion_number(instance)
    pending = [row["number"] for row in versions.rows(instance) if row["state"] == "pending"]
    return {
        "before": str(now) if now else BASE,
        "after": str(pending[-1]) if pending else BASE,
    }


def _form(instance: Instance, answerer: Answerer | GatewayAnswerer | None, fields: Mapping[str, str]) -> dict[str, Any]:
    """The form as it was sent, and what may be chosen."""
    rows, now = versions.rows(instance), versions.champion_number(instance)
    picks = {fields.get("before"), fields.get("after")}
    choices = [row for row in rows[:-OFFERED] if str(row["number"]) in picks] + rows[-OFFERED:]
    return {
        "able": answerer is not None,
        "fields": fields,
        "versions": choices[::-1],
        "champion": now,
        "longest": LONGEST,
        "most_images": MAX_PER_ROW if may_see(instance.settings.base_model) else 0,
        "base": BASE,
        "why": "",
        "sides": (),
        "images": (),
    }
