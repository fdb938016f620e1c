"""Reader of a multimodal base model: prompts with images as token ids, and the tensors its vision tower takes.

An image is tokens of its own. If the processor repeats one image token, the reader puts ids
far beyond any vocabulary that follow from the images' digests, so that equal ids mean equal images: prefixes, caches
and the order of batches need to know of nothing but tokens. `plain` gives the ids as the processor wrote them.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    BatchEncoding,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.auto.processing_auto import processor_class_from_name
from transformers.processing_utils import ProcessorMixin

from components.errors import LciaError
from components.model.chat import with_date
from components.model.control import PLACEHOLDERS, ControlTokens
from components.storage.objects import canonical, digest_of
from components.tasks.images import Picture

TEXT_KEYS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
"""Outputs of a processor besides the tensors of the images."""
FIRST = 1 << 62
"""Ids from here on are those of images: 44 bits of a digest, then the place among the image tokens of the prompt."""
PLACE_BITS = 17
MAX_PROMPTS = 65536
"""Prompts whose ids are remembered, because every adapter that is tried on a prompt reads them."""


class ProcessorUnusable(LciaError):
    """The image processor of a base model can't be loaded, or can't read an example."""


class ImageReader:
    """Tokenizer and image processor of one multimodal base model."""

    def __init__(self, processor: ProcessorMixin, image_token: int) -> None:
        self.processor, self.image_token = processor, image_token
        self.tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        placeholders = {getattr(processor, name, None) for name in PLACEHOLDERS}
        names = {each for each in placeholders if isinstance(each, str)}
        self.control = ControlTokens(self.tokenizer, names, getattr(processor, "chat_template", None))
        self._blocks: dict[int, tuple[str, tuple[Picture, ...]]] = {}
        self._prompts: OrderedDict[_Key, list[int]] = OrderedDict()

    @classmethod
    def load(cls, folder: Path) -> "ImageReader":
        """The reader of a base model's folder.

        Raises:
            ProcessorUnusable: it holds no processor that works here.
        """
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            return cls(_processor(folder), int(config.image_token_id))
        except (OSError, ValueError, KeyError, AttributeError, ImportError, TypeError) as error:
            raise ProcessorUnusable(f"the image processor in {folder} does not load: {error}") from error

    @property
    def name(self) -> str:
        """Image processor and library that the tokens of images depend on."""
        from PIL import __version__

        return f"{type(self.processor.image_processor).__name__}, pillow {__version__}"

    def prompt(self, text: str, images: Sequence[Picture], strings: Sequence[str] = ()) -> list[int]:
        """Token ids of a prompt as `text` wrote it; its marks stand for `strings`, which are read as text.

        Raises:
            ContentRefused: the tokenizer can't take one of the strings as text.
            ProcessorUnusable: the processor can't read the images, or writes no text around them.
        """
        if not images:
            return self.control.encode(text, strings, special=self._adds_special(text))
        key = (text, tuple(strings), tuple(images))
        if key in self._prompts:
            self._prompts.move_to_end(key)
            return self._prompts[key]
        ids = self._marked_ids(text, *key[1:]) if strings else self._process(text, key[2])["input_ids"][0].tolist()
        self._prompts[key] = self._own_ids(ids, text, key[2])
        if len(self._prompts) > MAX_PROMPTS:
            self._prompts.popitem(last=False)
        return self._prompts[key]

    def plain(self, tokens: Sequence[int]) -> list[int]:
        """The ids as the processor writes them."""
        return [self.image_token if token >= FIRST else token for token in tokens]

    def pictures(self, tokens: Sequence[int]) -> tuple[Picture, ...]:
        """The images of a prompt."""
        return next((self._blocks[token >> PLACE_BITS][1] for token in tokens if token >= FIRST), ())

    def inputs(self, tokens: Sequence[int]) -> dict[str, Tensor]:
        """Tensors that the vision tower takes for the images of a prompt."""
        text, images = next(self._blocks[token >> PLACE_BITS] for token in tokens if token >= FIRST)
        return {name: value for name, value in self._process(text, images).items() if name not in TEXT_KEYS}

    def forget(self) -> None:
        """Drop the prompts that were read, with their images; image ids given out before then mean nothing."""
        self._blocks.clear()
        self._prompts.clear()

    def _own_ids(self, ids: Sequence[int], text: str, images: tuple[Picture, ...]) -> list[int]:
        digest = int(digest_of(canonical([image.digest for image in images]))[:11], 16)
        block = (FIRST >> PLACE_BITS) | digest
        entry = self._blocks.setdefault(block, (text, images))
        if entry[1] != images:
            raise ProcessorUnusable("two images have digests that begin alike (1 in 10^13); leave one of them out")
        places = iter(range(1 << PLACE_BITS))
        return [(block << PLACE_BITS) | next(places) if token == self.image_token else token for token in ids]

    def _process(self, text: str, images: tuple[Picture, ...]) -> Mapping[str, Any]:
        pixels = [Image.fromarray(image.pixels()) for image in images]
        options = {"add_special_tokens": self._adds_special(text), "return_tensors": "pt"}
        try:
            encoding: Mapping[str, Any] = self.processor(text=[text], images=[pixels], **options)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            sizes = ", ".join(f"{image.width} x {image.height}" for image in pixels)
            raise ProcessorUnusable(f"the base model's processor can't read images of {sizes}: {error}") from error
        return encoding

    def _marked_ids(self, text: str, strings: tuple[str, ...], images: tuple[Picture, ...]) -> list[int]:
        """Token ids of a prompt with marks: of the text that the processor hands to its tokenizer."""
        record = _Record(self.tokenizer)
        self.processor.tokenizer = record
        try:
            self._process(text, images)
        finally:
            self.processor.tokenizer = self.tokenizer
        if not record.texts:
            names = ", ".join(sorted({repr(each) for each in strings}))
            raise ProcessorUnusable(
                f"a text spells {names}, which the base model's processor can't keep apart from its own tokens; take "
                "it out of the text"
            )
        return self.control.encode(max(record.texts, key=len), strings, special=self._adds_special(text))

    def _adds_special(self, text: str) -> bool:
        begin = self.tokenizer.bos_token
        return begin is None or not text.startswith(begin)

    def text(self, turns: Sequence[Mapping[str, str]], images: int, day: date) -> str:
        """The turns by the chat template, or plainly without one; images come before the text of the last turn.

        `day` is the date that the template may ask for.
        """
        template = getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template
        if template is None:
            plain = "\n\n".join(turn["content"] for turn in turns) + "\n\n### Answer:\n"
            return f"{self.processor.image_token}\n" * images + plain
        parts = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        parts[-1]["content"] = [{"type": "image"}] * images + list(parts[-1]["content"])
        text = ProcessorMixin.apply_chat_template(  # not the class's own, which may ask for a video processor
            self.processor, parts, chat_template=with_date(template, day), add_generation_prompt=True, tokenize=False
        )
        return str(text)


_Key: TypeAlias = tuple[str, tuple[str, ...], tuple[Picture, ...]]
"""A prompt's text, the strings its marks stand for, and its images."""


class _Record:
    """A tokenizer that notes the texts it is given."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __call__(self, text: str | list[str], **options: Any) -> BatchEncoding:  # noqa: ANN401 - passed on
        self.texts += [text] if isinstance(text, str) else text
        encoding: BatchEncoding = self._tokenizer(text, **options)
        return encoding

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the tokenizer has
        return getattr(self._tokenizer, name)


def sees(folder: Path) -> bool:
    """True if the base model in a folder takes images.

    Raises:
        OSError, ValueError: it has no readable configuration.
    """
    return type(AutoConfig.from_pretrained(folder, trust_remote_code=False)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def _processor(folder: Path) -> ProcessorMixin:
    """The processor with Pillow's arithmetic, wherever it runs; without its videos, which nothing here reads."""
    config, _ = ProcessorMixin.get_processor_dict(folder)
    name = config.get("processor_class")
    kind = processor_class_from_name(name) if name else type(AutoProcessor.from_pretrained(folder))
    if kind is None:
        raise ValueError(f"no processor class {name!r}")
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False),
        "tokenizer": AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    }
    still = type(f"Still{kind.__name__}", (kind,), {"get_attributes": classmethod(lambda _: list(parts))})
    options = {key: value for key, value in config.items() if key not in _NOT_OPTIONS and key not in parts}
    if "video_processor" in kind.get_attributes():
        options["video_processor"] = None
    processor: ProcessorMixin = still(**parts, **options)
    if processor.chat_template is None:
        processor.chat_template = parts["tokenizer"].chat_template
    return processor


_NOT_OPTIONS = frozenset({"processor_class", "auto_map", "video_processor", "image_processor_type"})


def on_device(inputs: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors where the model is, numbers in its type."""
    return {
        name: value.to(device, dtype if value.is_floating_point() else value.dtype) for name, value in inputs.items()
    }
