"""Which rows of a task do not fit into the base model's context, told before anything is trained."""

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from components.model.base import BaseModelError, is_available, load_tokenizer
from components.model.prompts import render, user_text
from components.settings import BaseModelSettings
from components.tasks.rows import Example

SURE_BYTES = 2
"""A row of this many bytes fewer than there are tokens left fits without being counted: a token is a byte or more."""


def too_long(tokenizer: PreTrainedTokenizerBase, settings: BaseModelSettings, rows: Sequence[Example]) -> list[int]:
    """Per row its tokens, prompt and answer, where they exceed `base_model.max_tokens`; else 0.

    Exact: rows that could exceed it are rendered as training and evaluation render them.
    """
    unbounded = settings.model_copy(update={"max_tokens": 2**31})
    around = len(render(tokenizer, unbounded, "a", None, "a").tokens)
    room = settings.max_tokens - around - SURE_BYTES
    out = []
    for row in rows:
        text = user_text(row.instruction, row.input)
        tokens = 0
        if len(text.encode()) + len(row.output.encode()) > room:
            tokens = len(render(tokenizer, unbounded, row.instruction, row.input, row.output).tokens)
        out.append(tokens if tokens > settings.max_tokens else 0)
    return out


def context_check(settings: BaseModelSettings, models: str) -> Callable[[Sequence[Example]], list[int]] | None:
    """`too_long` of the configured base model, or None where it is not on this machine (yet).

    The embedded model is not converted for it: that takes long, and tuning does it.
    """
    if not is_available(settings, Path(models)):
        return None
    try:
        tokenizer = load_tokenizer(settings, Path(models))
    except BaseModelError:
        return None
    return lambda rows: too_long(tokenizer, settings, rows)
