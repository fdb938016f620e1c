"""Control tokens of a base model, and content that spells them.

A tokenizer makes one id of `<|im_end|>` wherever it stands, so a text that holds the string would end its own turn.
Content (instructions, inputs, answers, choices, the system prompt) is text alone: the template is filled with marks
in place of such strings, the template's own control tokens become aliases, the strings are put back, and a twin of the
tokenizer that knows the aliases instead of the tokens reads the whole. Texts that spell no control token go the
tokenizer's own way, and the twin would give the same ids for them.

`apply_chat_template(..., sanitize_control_tokens=True)` of transformers reads such a text in pieces and with other ids
around the string, lets a template cut at it, and knows neither answers nor a prompt without template.
"""

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from components.errors import LciaError
from components.model.chat import end_tokens

BRACKETED = re.compile(r"[<\[{(|].*\w.*[>\]})|]", re.DOTALL)
"""Added tokens that are not declared special and still control, such as `<think>`, `[TOOL_CALLS]`, `<|fim_prefix|>`."""
PLAIN = re.compile(r"\s+|<0x[0-9A-F]{2}>")
"""Added tokens that are text, special or not: white space and single bytes."""
HTML = re.compile(r"</?(table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|[bius]|su[bp]|code)>")
"""Added tokens of Gemma's tokenizers that are text, though bracketed."""
PLACEHOLDERS = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token")
"""Attributes of a processor that name what it writes images and other media for."""


class ContentRefused(LciaError):
    """A text that the base model's tokenizer or chat template can't take as text."""


@dataclass(frozen=True)
class Script:
    """Texts with a mark in place of each control token they spell; `strings` are those, in the order of the marks."""

    texts: tuple[str, ...]
    strings: tuple[str, ...] = ()


class ControlTokens:
    """The control tokens of one tokenizer: `ids`, and `names` from strings to ids (None: a placeholder without one)."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, placeholders: Iterable[str] = (), template: str | None = None
    ) -> None:
        """`placeholders` and `template`, the chat template, are those of a multimodal base model's processor."""
        by_name = {
            str(token.content): int(id_) for id_, token in tokenizer.added_tokens_decoder.items() if controls(token)
        }
        self.tokenizer, self._template = tokenizer, template
        self.names: dict[str, int | None] = {**dict.fromkeys(placeholders), **by_name}
        longest_first = sorted(self.names, key=len, reverse=True)
        self._strings = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.ids = set(by_name.values()) - {tokenizer.unk_token_id}  # what no vocabulary holds is unknown, not control
        self._secret = secrets.token_hex(16)
        self._mark = re.compile(rf"{self._secret}m(\d+)m")

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end an answer, the one that is learnt first; see `end_tokens`."""
        template = self._template or (self.tokenizer.get_chat_template() if self.tokenizer.chat_template else None)
        return end_tokens(self.tokenizer, template, self.ids, parts=self._template is not None)

    def script(self, texts: Sequence[str]) -> Script:
        """Texts with their control strings marked."""
        strings: list[str] = []

        def mark(match: re.Match[str]) -> str:
            strings.append(match[0])
            return f"{self._secret}m{len(strings) - 1}m"

        return Script(tuple(self._strings.sub(mark, text) for text in texts), tuple(strings))

    def spells_control(self, text: str) -> bool:
        """True if a text spells a control token."""
        return self._strings.search(text) is not None

    def content(self, text: str) -> list[int]:
        """Token ids of a text that stands alone: an answer or a choice.

        Raises:
            ContentRefused: see `encode`.
        """
        script = self.script([text])
        return self.encode(script.texts[0], script.strings, special=False)

    def encode(self, text: str, strings: Sequence[str], *, special: bool) -> list[int]:
        """Token ids of a prompt whose marks stand for `strings`; `special` adds what the tokenizer puts around a text.

        Raises:
            ContentRefused: the tokenizer can't read one of the strings as text.
        """
        own = self._count(self.names[name] for name in self._strings.findall(text))
        if special:
            own += self._count(self.tokenizer("", add_special_tokens=True)["input_ids"])
        if not strings:
            ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
            if not self._count(ids) - own:
                return ids
        lines = self._strings.sub(lambda match: self._aliases.get(match[0], match[0]), text)
        lines = self._mark.sub(lambda match: strings[int(match[1])], lines)
        ids = list(self._twin.encode(lines, add_special_tokens=special).ids)
        if self._count(ids) != own:
            self._refuse(strings)
        return ids

    def _count(self, ids: Iterable[int | None]) -> "Counter[int | None]":
        return Counter(id_ for id_ in ids if id_ in self.ids)

    def _refuse(self, strings: Sequence[str]) -> None:
        names = ", ".join(sorted({repr(each) for each in strings})) or "a control token in another form"
        raise ContentRefused(
            f"a text spells {names}, which the tokenizer of {self.tokenizer.name_or_path or 'the base model'} can't "
            "keep apart from its own control tokens; take it out of the text, or name another base model"
        )

    @cached_property
    def _aliases(self) -> dict[str, str]:
        names = [name for name, id_ in self.names.items() if id_ is not None]
        return {name: f"{self._secret}a{number}a" for number, name in enumerate(names)}

    @cached_property
    def _twin(self) -> Tokenizer:
        """The tokenizer with aliases in place of its control tokens, under the same ids."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ContentRefused(
                f"a text spells a control token of {self.tokenizer.name_or_path or 'the base model'}, whose tokenizer "
                f"({type(self.tokenizer).__name__}) has no file tokenizer.json and so can't take it as text; take it "
                "out of the text, or name a base model with a fast tokenizer"
            )
        state = json.loads(backend.to_str())
        state["truncation"] = state["padding"] = None
        for token in state["added_tokens"]:
            token["content"] = self._aliases.get(token["content"], token["content"])
        _rename(state["model"], self._aliases)
        twin = Tokenizer.from_str(json.dumps(state))
        if any(twin.token_to_id(alias) != self.names[name] for name, alias in self._aliases.items()):
            self._refuse(())
        return twin


def controls(token: Any) -> bool:  # noqa: ANN401 - tokenizers' AddedToken
    """True if an added token is no text."""
    if PLAIN.fullmatch(token.content):
        return False
    return bool(token.special or (BRACKETED.fullmatch(token.content) and not HTML.fullmatch(token.content)))


@lru_cache(maxsize=4)
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """The control tokens of a tokenizer, looked up once."""
    return ControlTokens(tokenizer)


def _rename(model: dict[str, Any], aliases: dict[str, str]) -> None:
    """Let the model of a tokenizer's file hold aliases where it holds control tokens, so that no text leads to them."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with their scores
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in vocabulary]
        return
    pieces = aliases.keys() & vocabulary.keys()
    model["vocab"] = {aliases.get(piece, piece): id_ for piece, id_ in vocabulary.items()}
    if model.get("unk_token") in pieces:
        model["unk_token"] = aliases[model["unk_token"]]
    if pieces and "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _leads_to(merge, pieces)]


def _leads_to(merge: str | list[str], pieces: Iterable[str]) -> bool:
    start, end = merge.split(" ", 1) if isinstance(merge, str) else merge
    return bool({start, end, start + end} & set(pieces))
