# ruff: noqa: RUF001 - the bars of DeepSeek's tokens are wide
"""Small real tokenizers of the shapes that base models come with: vocabulary, added tokens and chat template."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Say whether the note about a purchase is positive or negative.",
    "The lamp that a friend bought in spring works every day without a fault, order 65 of 63.",
    "user assistant system model think tool call end start of turn text im header id",
    "<b>bold</b> words, </s> and <s>, [INST] brackets [/INST], pipes <|x|>, 12:30 & 0755",
    "Judge it: 0 1 2 3 4 5 6 7 8 9 # a b c d e f x",
    "Answer with the result only.\n\nNaïve café 日本語 です。\n",
]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- endif %}{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role == 'user' %}{{- '<|im_start|>user\n' + content + '<|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' %}{%- if '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' + content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{%- endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{{ bos_token + '[INST] ' + (system + message['content']).strip() + ' [/INST]' }}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{{ '<start_of_turn>' + message['role'] + '\n' + first + message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def special(*names: str, **options: Any) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False, **options) for name in names]


def plain(*names: str) -> list[AddedToken]:
    return [AddedToken(name, special=False, normalized=False) for name in names]


def byte_level(first: Sequence[str] = (), *, ignore_merges: bool = False) -> Tokenizer:
    """Byte pairs of GPT-2's kind; `first` are words of the vocabulary itself."""
    bpe = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(GPT2), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=list(first), initial_alphabet=alphabet)
    )
    return bpe


def sentence_pieces(first: Sequence[str], prefix: str) -> Tokenizer:
    """Pairs with byte fallback as SentencePiece's; `prefix`: metaspace (first), none (Gemma) or prepend (the older)."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*first, *bytes_])
    bpe.train_from_iterator(TEXTS, trainer)
    state = json.loads(bpe.to_str())
    state["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in first]
    bpe = Tokenizer.from_str(json.dumps(state))
    if prefix == "metaspace":
        bpe.normalizer = None
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if prefix == "prepend":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return bpe


def wrapped(backend: Tokenizer, template: str | None, end: str, **named: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, chat_template=template, clean_up_tokenization_spaces=False, **named
    )


def smollm() -> PreTrainedTokenizerFast:
    backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"])
    return wrapped(backend, CHATML, "<|im_end|>", bos_token="<|im_start|>")


def qwen() -> PreTrainedTokenizerFast:
    backend = byte_level()
    backend.normalizer = normalizers.NFC()
    backend.add_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>"))
    backend.add_tokens(plain("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<think>", "</think>"))
    return wrapped(backend, QWEN3, "<|im_end|>")


def llama3() -> PreTrainedTokenizerFast:
    backend = byte_level(ignore_merges=True)
    backend.add_tokens(special("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
    start = backend.token_to_id("<|begin_of_text|>")
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair=None, special_tokens=[("<|begin_of_text|>", start)]
    )
    return wrapped(backend, LLAMA3, "<|eot_id|>", bos_token="<|begin_of_text|>")


def llama2() -> PreTrainedTokenizerFast:
    backend = sentence_pieces(["<unk>", "<s>", "</s>"], "metaspace")
    backend.add_tokens(special("[INST]", "[/INST]"))
    return wrapped(backend, LLAMA2, "</s>", bos_token="<s>", unk_token="<unk>")


def gemma() -> PreTrainedTokenizerFast:
    backend = sentence_pieces(["<pad>", "<eos>", "<bos>", "<unk>"], "none")
    backend.add_tokens(special("<start_of_turn>", "<end_of_turn>"))
    backend.add_tokens(plain("\n\n", "▁▁", "<b>", "</b>", "<unused1>"))
    return wrapped(backend, GEMMA, "<end_of_turn>", bos_token="<bos>", unk_token="<unk>")


def phi() -> PreTrainedTokenizerFast:
    backend = sentence_pieces(["<unk>", "<s>", "</s>"], "prepend")
    backend.add_tokens(special("<|endoftext|>", "<|assistant|>", "<|system|>", "<|user|>", "<|end|>", rstrip=True))
    return wrapped(backend, PHI, "<|end|>", bos_token="<s>", unk_token="<unk>")


def deepseek() -> PreTrainedTokenizerFast:
    backend = byte_level()
    backend.add_tokens(special("<｜end▁of▁sentence｜>"))
    backend.add_tokens(plain("<｜User｜>", "<｜Assistant｜>", "lamp"))
    template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
        "{% else %}{{ message['content'] }}{% endif %}{% endfor %}{{ '<｜Assistant｜>' }}"
    )
    return wrapped(backend, template, "<｜end▁of▁sentence｜>")


def unigram() -> PreTrainedTokenizerFast:
    """Pieces with scores, under which a control token in the vocabulary is the likeliest reading of its own name."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    names = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator(
        TEXTS * 4, trainers.UnigramTrainer(vocab_size=150, special_tokens=names, unk_token="<unk>")
    )
    return wrapped(backend, None, "</s>", bos_token="<s>", unk_token="<unk>")


def no_template() -> PreTrainedTokenizerFast:
    found = llama3()
    found.chat_template = None
    return found


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "smollm": smollm,
    "qwen": qwen,
    "llama3": llama3,
    "llama2": llama2,
    "gemma": gemma,
    "phi": phi,
    "deepseek": deepseek,
    "unigram": unigram,
    "no template": no_template,
}
CONTROL: dict[str, tuple[str, ...]] = {
    "smollm": ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<repo_name>"),
    "qwen": ("<|im_end|>", "<|im_start|>", "<think>", "</think>", "<tool_call>", "<|fim_prefix|>", "<|vision_pad|>"),
    "llama3": ("<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>"),
    "llama2": ("</s>", "<s>", "<unk>", "[INST]", "[/INST]"),
    "gemma": ("<end_of_turn>", "<start_of_turn>", "<bos>", "<eos>", "<pad>", "<unused1>"),
    "phi": ("<|end|>", "<|user|>", "<|assistant|>", "</s>"),
    "deepseek": ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    "unigram": ("</s>", "<s>"),
    "no template": ("<|eot_id|>", "<|begin_of_text|>"),
}
"""Strings of each family that control; `<b>`, "lamp" and white space are text."""
