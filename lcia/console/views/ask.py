"""Trying versions out: one instruction, answered by two of them side by side."""

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
from components.promotion import candidates
from components.promotion.candidates import Candidate
from components.settings import Settings
from components.tasks.images import MAX_IMAGE_BYTES, MAX_PER_ROW, ImageRefused
from components.tasks.problems import printable
from lcia.console.base import Console, Reader, form_of
from lcia.inference.ask import pictures_of
from lcia.inference.process import Answerer, NoModelHere, answers_here
from lcia.instance import Instance

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
class Shown:
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
    def all_of(cls, sent: Sequence[UploadFile], settings: Settings) -> "list[Shown]":
        """The images of files that were sent, checked like those of a task.

        Raises:
            ImageRefused: one is too large, or no image.
        """
        files = []
        for one in sent:
            name = printable(one.filename or "")[-LONGEST_NAME:]
            if (one.size or 0) > MAX_IMAGE_BYTES:
                raise ImageRefused(f"{name}: {one.size} bytes", f"at most {MAX_IMAGE_BYTES} bytes")
            files.append((name, one.file.read()))
        sides = [picture.pixels().shape[1::-1] for picture in pictures_of(files, settings)]
        return [cls(name, *size, file) for (name, file), size in zip(files, sides, strict=True)]


@dataclass(frozen=True)
class Side:
    """One of the two answers."""

    version: Candidate | None
    """None: the base model alone."""
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
    answerer = Answerer(instance.settings) if answers_here(instance.settings.serve) else None

    @router.get("/try")
    def empty(request: Request) -> Response:
        reader = console.reader(request)
        fields = {**_usual(instance), **request.query_params}
        return console.page(reader, "trying.html", **_form(instance, answerer, fields))

    @router.post("/try")
    async def asked(request: Request) -> Response:
        reader = await run_in_threadpool(console.reader, request)  # before anything large is read
        async with request.form() as form:
            fields = await form_of(request)
            files = [one for one in form.getlist("image") if isinstance(one, UploadFile) and one.filename]
            return await run_in_threadpool(_answered, console, answerer, reader, fields, files)

    return router


def _answered(
    console: Console,
    answerer: Answerer | None,
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
    instance: Instance, answerer: Answerer | None, fields: Mapping[str, str], files: Sequence[UploadFile]
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
    images = Shown.all_of(files, instance.settings)
    versions = [_version(instance, fields.get(side, BASE)) for side in ("before", "after")]
    for version in versions:
        if version:
            instance.need_statement(version)
    began = time.monotonic()
    digests = [version.digest if version else None for version in versions]
    answers = answerer.ask(digests, instruction, text or None, [one.file for one in images])
    pieces = differing(*(answer["text"] for answer in answers))
    sides = [
        Side(version, shown, answer["group"], answer["similarity"], answer["nearest_task"])
        for version, shown, answer in zip(versions, pieces, answers, strict=True)
    ]
    same = answers[0]["text"] == answers[1]["text"]
    return {"sides": sides, "same": same, "images": images, "seconds": time.monotonic() - began}


def differing(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Two texts in pieces that are in both, and pieces that are not; by words, in Japanese by characters."""
    words = _PIECES.findall(left), _PIECES.findall(right)
    found: tuple[list[Piece], list[Piece]] = [], []
    for kind, *bounds in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, start, end in ((0, *bounds[:2]), (1, *bounds[2:])):
            if start < end:
                found[side].append(Piece("".join(words[side][start:end]), kind != "equal"))
    return found


def _text(fields: Mapping[str, str], name: str) -> str:
    text = fields.get(name, "").replace("\r\n", "\n").strip()  # what browsers make of a new line
    if len(text) > LONGEST[name]:
        raise QuestionRefused(f"the {name} has {len(text)} characters, expected at most {LONGEST[name]}; shorten it")
    return text


def _version(instance: Instance, reference: str) -> Candidate | None:
    return None if reference == BASE else instance.version(reference)


def _usual(instance: Instance) -> dict[str, str]:
    """The champion beside the newest version that waits for people, or beside the base model."""
    now = instance.champion()
    with instance.db.read() as connection:
        waiting = candidates.versions(connection, instance.assistant, "pending")
    return {
        "before": str(now.number) if now else BASE,
        "after": str(waiting[-1].number) if waiting else BASE,
    }


def _form(instance: Instance, answerer: Answerer | None, fields: Mapping[str, str]) -> dict[str, Any]:
    """The form as it was sent, and what may be chosen."""
    with instance.db.read() as connection:
        known = candidates.versions(connection, instance.assistant)
    named = {fields.get("before"), fields.get("after")}
    offered = [one for one in known if one in known[-OFFERED:] or str(one.number) in named]
    return {
        "able": answerer is not None,
        "asked": fields,
        "versions": offered[::-1],
        "champion": instance.champion(),
        "longest": LONGEST,
        "most_images": MAX_PER_ROW if may_see(instance.settings.base_model) else 0,
        "base": BASE,
        "why": "",
        "sides": (),
        "images": (),
    }
