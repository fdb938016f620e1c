"""Text of an answer as its tokens come: the parts add up to what decoding all tokens at once gives, stripped."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

HALF = "\N{REPLACEMENT CHARACTER}"
"""Stands at the end while a character is not complete."""


class TextStream:
    """Tokens in, parts of the text out; white space around the text is left out, and it ends before a stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._sent = ""
        self.stopped = False
        """True once a stop string ended the text."""

    @property
    def text(self) -> str:
        """Everything that was given out."""
        return self._sent

    def push(self, token: int) -> str:
        """The next part of the text, empty while it is not certain."""
        self._tokens.append(token)
        text = self._cut()
        return self._give(text if self.stopped else text[: len(text) - self._open(text)].rstrip())

    def end(self) -> str:
        """The last part of the text."""
        return self._give(self._cut())

    def _cut(self) -> str:
        text = str(self._tokenizer.decode(self._tokens, skip_special_tokens=True)).lstrip()
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self.stopped = bool(places)
        return text[: min(places, default=len(text))].rstrip()

    def _open(self, text: str) -> int:
        """Characters at the end that later tokens may change: half a character, or the beginning of a stop string."""
        halves = len(text) - len(text.rstrip(HALF))
        return max([halves, *(_overlap(stop, text) for stop in self._stops)])

    def _give(self, text: str) -> str:
        if not text.startswith(self._sent):  # a tokenizer that changes what it wrote: say no more than is certain
            return ""
        part = text[len(self._sent) :]
        self._sent = text
        return part


def _overlap(stop: str, text: str) -> int:
    """Characters at the end of a text that begin a stop string and do not complete it."""
    longest = min(len(stop) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if stop.startswith(text[-length:])), 0)
