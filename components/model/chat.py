"""Chat templates: their date is the settings', and the token by which they end a turn is the one that ends an answer.

Some templates (Llama 3.2, SmolLM3) write today's date into the prompt by the function `strftime_now`. With it the same
row would be another prompt each day: predictions could not be carried over, and nobody would train on the prompts that
are answered later. A macro of that name, in front of the template, writes the date of the settings instead.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

CLOCK = "strftime_now"
"""Function by which a chat template asks for today's date."""
DIRECTIVES = (*(f"%-{letter}" for letter in "dmyjHIMS"), *(f"%{letter}" for letter in "aAbBcdfGHIjmMpSuUVwWxXyY"))


def with_date(template: str, day: date) -> str:
    """A chat template under which it is midnight of `day`; one that asks for no date stays as it is."""
    return _with_date(template, day) if CLOCK in template else template


@lru_cache(maxsize=8)
def _with_date(template: str, day: date) -> str:
    now = datetime.combine(day, time())
    steps = "".join(f" | replace({_quoted(one)}, {_quoted(now.strftime(one))})" for one in DIRECTIVES)
    # the empty text at the end: Jinja drops a line break behind a block, which would be the template's own
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}{{{{ '' }}}}{template}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def end_tokens(
    tokenizer: PreTrainedTokenizerBase, template: str | None, control: Collection[int], *, parts: bool = False
) -> tuple[int, ...]:
    """Tokens that end an answer; the first is the one that is learnt: the one by which the chat template ends a turn.

    The tokenizer's own end token and the control tokens that the base model's generation configuration names; Gemma
    and Phi-3 end turns with one of the latter. `parts`: the template takes contents as lists of parts.
    """
    own = int(tokenizer.eos_token_id)
    every = [own, *sorted(_configured(Path(tokenizer.name_or_path)) & set(control) - {own})]
    if len(every) > 1 and template is not None:
        after = _after_answer(tokenizer, template, parts=parts)
        names = {token: str(tokenizer.convert_ids_to_tokens(token)) for token in every}
        every.sort(key=lambda token: place if (place := after.find(names[token])) >= 0 else len(after))
    return tuple(every)


def _after_answer(tokenizer: PreTrainedTokenizerBase, template: str, *, parts: bool) -> str:
    """The text that a chat template writes behind an answer; none if it takes no such conversation."""
    answer = "An answer, and nothing else."
    turns: Sequence[Mapping[str, Any]] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    if parts:
        turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    try:
        text = str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
    except (TemplateError, TypeError, ValueError):
        return ""
    return text.rpartition(answer)[2]


def _configured(folder: Path) -> set[int]:
    """End tokens by the base model's generation configuration or, without one, its configuration."""
    for name in ("generation_config.json", "config.json"):
        try:
            ends = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError):
            continue
        return {each for each in (ends if isinstance(ends, list) else [ends]) if isinstance(each, int)}
    return set()
