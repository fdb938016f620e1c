"""Process that answers questions from the console: it holds the model, so that the service holds none.

It starts at the first question, with only the environment variables that a process needs, and reads the settings, which
hold no password, from its standard input. It answers one question at a time, and ends when nobody has asked for a while
or the service is gone. Each line is a JSON object:

    to it      the settings, then {"versions": [digest or null, ...], "instruction": text, "input": text or null,
               "images": [file in base64, ...]}
    from it    {"answers": [...]} or {"refused": words}

Questions and answers are neither stored nor logged, and images are forgotten once they are answered.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from traceback import print_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any

from components import environment
from components.errors import LciaError
from components.settings import ServeSettings, Settings
from components.storage.objects import ObjectStore
from components.tasks import isolation
from components.tasks.images import Picture

if TYPE_CHECKING:
    from components.serving.bundle import Bundle

PATIENCE = 180.0
"""Seconds that a question may take, including loading the model, before the process is killed."""
IDLE = 600.0
"""Seconds without a question after which the process ends."""
PLACES = 4
"""Questions at a time: one is answered, the others wait."""
BUNDLES = 8
"""Versions that stay loaded."""


class NoModelHere(LciaError):
    """This service can't answer questions: it has no model."""


class AnswererBusy(LciaError):
    """Too many questions wait already."""


class AnswererEnded(LciaError):
    """The process that answers has ended."""


class AnswerRefused(LciaError):
    """A version can't answer."""


def answers_here(settings: ServeSettings) -> bool:
    """True if versions can be tried out at this service.

    Raises:
        NoModelHere: the settings ask for it, and torch is not installed.
    """
    able = importlib.util.find_spec("torch") is not None
    if settings.answers is True and not able:
        raise NoModelHere(
            "serve.answers is true, but torch is not installed where this service runs; install it, or set "
            "serve.answers to auto or false"
        )
    return able and settings.answers is not False


class Answerer:
    """Process that answers, as the service sees it."""

    def __init__(self, settings: Settings, patience: float = PATIENCE, idle: float = IDLE) -> None:
        """Start nothing before the first question."""
        self._settings, self._patience, self._idle = settings.for_steps(), patience, idle
        self._turn, self._places = threading.Lock(), threading.BoundedSemaphore(PLACES)
        self._child: subprocess.Popen[str] | None = None
        self._rest: threading.Timer | None = None

    def ask(
        self, versions: Sequence[str | None], instruction: str, text: str | None, images: Sequence[bytes] = ()
    ) -> list[dict[str, Any]]:
        """Answer of each version (None: the base model alone): `text`, `group`, `similarity`, `nearest_task`.

        `images` are the contents of files.

        Raises:
            AnswererBusy: too many wait already.
            AnswererEnded: the process died, or took too long and was killed; the next question starts another.
            AnswerRefused: a version can't answer, in its own words.
        """
        if not self._places.acquire(blocking=False):
            raise AnswererBusy(f"{PLACES} questions are being answered already; wait a little and ask again")
        try:
            with self._turn:
                question = {"versions": list(versions), "instruction": instruction, "input": text}
                reply = self._exchange({**question, "images": [b64encode(file).decode() for file in images]})
        finally:
            self._places.release()
        if "refused" in reply:
            raise AnswerRefused(reply["refused"])
        answers: list[dict[str, Any]] = reply["answers"]
        return answers

    def end(self) -> None:
        """End the process after its present answer."""
        with self._turn:
            if self._child:
                _end(self._child)
            self._child = None

    def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._rest:
            self._rest.cancel()
        child, began, line = self._ready(), time.monotonic(), ""
        assert child.stdin  # noqa: S101 - a pipe
        assert child.stdout  # noqa: S101 - a pipe
        limit = threading.Timer(self._patience, child.kill)
        limit.start()
        try:
            with suppress(BrokenPipeError):
                print(json.dumps(question), file=child.stdin, flush=True)
                line = child.stdout.readline()
        finally:
            limit.cancel()
        if not line.endswith("\n"):
            raise AnswererEnded(self._how_ended(child, time.monotonic() - began))
        self._rest = threading.Timer(self._idle, self.end)
        self._rest.daemon = True
        self._rest.start()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _ready(self) -> "subprocess.Popen[str]":
        """Process that answers, started if none runs."""
        if self._child and self._child.poll() is None:
            return self._child
        child = subprocess.Popen(
            [sys.executable, "-m", "lcia.inference.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment.without_secrets(store=True),  # no password of ours
            text=True,
            start_new_session=True,  # Ctrl-C must reach the service only, which then ends this
        )
        weakref.finalize(self, _end, child)
        self._child = child
        assert child.stdin  # noqa: S101 - a pipe
        with suppress(BrokenPipeError):  # it died at once; the missing answer shows it
            print(json.dumps(self._settings), file=child.stdin, flush=True)
        return child

    def _how_ended(self, child: "subprocess.Popen[str]", seconds: float) -> str:
        _end(child)
        if seconds >= self._patience:
            return f"there was no answer within {self._patience:.0f} seconds, so the process that answers was ended"
        code = child.returncode
        if code == -signal.SIGKILL:
            return (
                "the process that answers was killed; the machine may be short of memory. The next question starts anew"
            )
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return (
            f"the process that answers ended ({how}); the service's own output says more. The next question starts anew"
        )


def _end(child: "subprocess.Popen[str]") -> None:
    """End a process by closing its input, or by force if that takes too long."""
    with suppress(BrokenPipeError):
        assert child.stdin  # noqa: S101 - a pipe
        child.stdin.close()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()


class _Versions:
    """Versions on one loaded base model, inside the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = ObjectStore(settings.storage.objects)
        self._bundle = lru_cache(BUNDLES)(self._read)

    def answer(
        self, version: str | None, instruction: str, text: str | None, images: Sequence[Picture]
    ) -> dict[str, Any]:
        """One answer.

        Raises:
            TooLong, SeesNoImages, ObjectMissing, BaseModelError: the version can't give one.
        """
        from components.serving.assistant import Assistant
        from lcia.inference.ask import bench_of

        serving_bundle = self._bundle(version) if version else None
        bench = bench_of(self._settings, serving_bundle)
        try:
            return vars(
                Assistant(bench, serving_bundle, self._settings.grouping).answer([(instruction, text, images)])[0]
            )
        finally:
            if bench.base.sight:
                bench.base.sight.forget()
                bench.base.sight.reader.forget()

    def _read(self, version: str) -> "Bundle":
        from components.serving import bundle

        return bundle.from_store(self._store, version)


def main() -> None:
    """Answer line by line until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to standard output: keep that apart from answers
    sys.excepthook = _without_words
    settings = Settings.model_validate_json(sys.stdin.readline())
    versions = _Versions(settings)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            files = [(f"image {number}", b64decode(file)) for number, file in enumerate(question["images"], start=1)]
            images = isolation.pictures(files, settings.packages)
            request = question["instruction"], question["input"], images
            reply: dict[str, Any] = {"answers": [versions.answer(each, *request) for each in question["versions"]]}
        except LciaError as error:
            reply = {"refused": str(error)}
        print(json.dumps(reply), file=answers, flush=True)


def _without_words(kind: type[BaseException], _: BaseException, where: TracebackType | None) -> None:
    """Print where an error happened, without its message, which could repeat the question."""
    print_tb(where)
    print(kind.__name__, file=sys.stderr)


if __name__ == "__main__":
    main()
