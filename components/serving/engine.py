"""Engine: what computes tokens for the gateway. Prompts come as token ids, so that every engine reads the same.

An adapter is known to an engine by the digest of its folder and never changed under that name: a new version brings new
digests, loads them before it gets requests, and the old ones are dropped when their last request has ended.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.errors import LciaError


class EngineDown(LciaError):
    """No part of the engine can answer at present; the request may be sent again."""


class NotAbleTo(LciaError):
    """The engine can't do what a request asks for; the message names it."""


@dataclass(frozen=True)
class Sampling:
    """Choice of the next token: greedy at temperature 0."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


GREEDY = Sampling()


@dataclass(frozen=True)
class Job:
    """One answer to generate."""

    prompt: tuple[int, ...]
    """Token ids, of the chat template and of images too."""
    adapter: str | None
    """Digest of an adapter that was put into the engine; None: the base model alone."""
    limit: int
    """Most tokens of the answer."""
    ends: tuple[int, ...]
    """Tokens that end the answer; no others do."""
    sampling: Sampling = GREEDY
    logprobs: int | None = None
    """Number of alternatives to report for each token; None reports no log-probabilities."""


@dataclass(frozen=True)
class Step:
    """One decoded token of an answer."""

    id: int
    logprob: float | None = None
    """Natural logarithm of its probability before temperature; None if the job did not ask."""
    top: tuple[tuple[int, float], ...] = ()
    """Likeliest tokens in its place with their log-probabilities, the likeliest first."""


class Engine(Protocol):
    """Computes tokens. All methods are called from one event loop."""

    @property
    def name(self) -> str:
        """Name in `gateway.engine`."""

    @property
    def sees_images(self) -> bool:
        """True if prompts may hold images."""

    async def start(self) -> None:
        """Make ready for work; returns once the base model answers, or raises EngineDown after a bounded time."""

    async def close(self) -> None:
        """Release everything."""

    async def put(self, digest: str, folder: Path) -> None:
        """Make an adapter known under its digest, from a folder whose files were checked against it.

        Doing it again changes nothing. An engine that is restarted gets it again by itself before it gets requests.

        Raises:
            EngineDown: no part of the engine took it in bounded time.
            AdapterError: it does not fit the base model.
        """

    async def drop(self, digest: str) -> None:
        """Forget an adapter that no request uses any more; one that is unknown is no error."""

    @property
    def ready(self) -> bool:
        """True if a request for the base model or any adapter that was put would be answered now."""

    @property
    def report(self) -> dict[str, object]:
        """Plain JSON on the state of its parts, for pages and metrics."""

    def generate(self, job: Job) -> AsyncGenerator[Step, None]:
        """Tokens of an answer as they are decoded, without the end token; closing the iterator stops the work.

        Raises:
            EngineDown: before the first token only if no part of the engine could answer; later: it died on the way.
        """

    async def likelihoods(self, job: Job, answers: Sequence[tuple[int, ...]]) -> list[float]:
        """Log-likelihood of each of `answers` (token ids, end token included) as continuation of the prompt.

        Raises:
            EngineDown: see `generate`.
        """
