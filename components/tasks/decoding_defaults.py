"""Metric and answer limit that fit a task's references, without a tokenizer.

A package is read where there is no base model, and its digest must not depend on one; so tokens are estimated from the
text, by script. The estimate leans to the high side of today's byte-pair tokenizers (a limit that is too high costs
time only when an answer does not end). The data checks, which have the base model's own tokenizer, catch the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeAlias

import regex  # type: ignore[import-untyped]

from components.words import words

Metric: TypeAlias = Literal["exact_match", "choice_accuracy", "token_f1", "rouge_l"]

LEAST_TOKENS = 32
"""Limit of tasks with short answers."""
MOST_TOKENS = 8192
"""Greatest limit that a task may name."""
ROOM = 1.25
"""Tokens allowed per estimated token of the longest reference."""
STEP = 16
"""Derived limits are multiples of this, so that a slightly longer row doesn't change the task's digest."""
FEW_WORDS, SENTENCE_WORDS = 3, 12
"""Most words, in nine of ten references, of answers that are matched exactly, and of those compared word by word."""
TYPICAL = 0.9
REPEATED = 2
"""References that occur this often each, on average, are labels."""

_PIECE = regex.compile(
    r"(?P<word>[A-Za-z]+)"
    r"|(?P<blank>\s+)"
    r"|(?P<short>[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Devanagari}]"
    r"|[\p{Latin}\p{Greek}\p{Cyrillic}\p{Arabic}])"
    r"|(?P<other>.)",
    regex.DOTALL,
)
_LETTERS_A_TOKEN = 3


@dataclass(frozen=True)
class DecodingDefaults:
    """Metric and greatest number of new tokens for a task, with the reason in a sentence."""

    metric: Metric
    max_new_tokens: int
    reason: str


def decoding_defaults(references: Sequence[str], choices: Sequence[str] = ()) -> DecodingDefaults:
    """Metric and answer limit for references; `choices` are the labels of a closed task.

    Labels, and answers of a few words or that recur, are matched exactly; short free answers are compared word by word,
    longer ones by their longest common subsequence of words.
    """
    limit = answer_limit([*references, *choices])
    if choices:
        return DecodingDefaults("exact_match", limit, f"the answer is one of {len(choices)} choices: it must match")
    counts = sorted(len(words(reference)) for reference in references)
    typical = counts[min(len(counts) - 1, int(TYPICAL * len(counts)))] if counts else 0
    distinct = len(set(references))
    if typical <= FEW_WORDS:
        why = f"nine of ten answers have at most {typical} words: they must match"
        return DecodingDefaults("exact_match", limit, why)
    if distinct * REPEATED <= len(references):
        why = f"{distinct} different answers in {len(references)} rows: they recur, so they must match"
        return DecodingDefaults("exact_match", limit, why)
    if typical <= SENTENCE_WORDS:
        why = f"nine of ten answers have at most {typical} words: an answer scores by the words it shares"
        return DecodingDefaults("token_f1", limit, why)
    why = f"answers are free text of up to {counts[-1]} words: an answer scores by the words it shares in their order"
    return DecodingDefaults("rouge_l", limit, why)


def answer_limit(references: Iterable[str]) -> int:
    """`max_new_tokens` with room for the longest reference and its end token, from 32 to `MOST_TOKENS`."""
    longest = max(map(answer_tokens, references), default=0)
    return max(LEAST_TOKENS, min(MOST_TOKENS, STEP * ceil(ROOM * longest / STEP)))


def answer_tokens(text: str) -> int:
    """Estimated tokens of an answer with its end token, for a tokenizer that knows its script poorly."""
    return 1 + sum(_cost(piece) for piece in _PIECE.finditer(text))


def _cost(piece: "regex.Match[str]") -> int:
    content = piece[0]
    if piece.lastgroup == "word":
        return ceil(len(content) / _LETTERS_A_TOKEN)
    if piece.lastgroup == "blank":
        return 0 if content == " " else 1
    size = len(content.encode("utf-8", "surrogatepass"))
    return max(1, size - 1) if piece.lastgroup == "short" else size
