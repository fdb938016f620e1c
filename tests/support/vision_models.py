"""Tiny multimodal base models with random weights, one of each architecture, saved as any base model is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

TEXTS = ["Read the digit.", "Is it even?", "Which is larger?", "odd even left right zero one two three four five six"]
TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NARROW: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.15,
}
EYES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def _tokenizer(special: list[str], **named: str) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(tokenizer_models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=360, special_tokens=first, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=first[2], pad_token=first[0], **named)


def _save(
    folder: Path, model: torch.nn.Module, processor: dict[str, Any], tokenizer: Any, image: dict[str, Any]
) -> Path:
    import json

    with torch.no_grad():  # as the text-only tiny model: wide, so that a short tuning gives hits
        model.get_input_embeddings().weight.normal_(0, 0.45)
        for name, parameter in model.named_parameters():
            if "projection" in name and not parameter.any():  # Gemma's begins as zero: it would see nothing
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    return folder


def llava(folder: Path) -> Path:
    """LLaVA-1.5: CLIP patches through a projector."""
    tokenizer = _tokenizer(["<image>"])
    tokenizer.chat_template = TURNS.replace("IMAGE", "<image>\n")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**EYES),
        text_config=LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **NARROW),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    size = {"height": 32, "width": 32}
    image = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": size}
    options = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _save(folder, model, {"processor_class": "LlavaProcessor", **options}, tokenizer, image)


def _idefics(folder: Path, config: Any, kind: Any) -> Path:
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    special += [f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3)]
    tokenizer = _tokenizer(special)
    tokenizer.chat_template = TURNS.replace("IMAGE", "<image>")
    vision = {**EYES, "hidden_size": 32}
    made = config(
        vision_config=vision,
        text_config=LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, **NARROW),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    image = {
        "image_processor_type": "Idefics3ImageProcessor",
        "size": {"longest_edge": 64},
        "max_image_size": {"longest_edge": 32},
        "do_image_splitting": True,
    }
    # Idefics3Processor writes what SmolVLM's writes, and asks for no package that reads videos
    processor = {"processor_class": "Idefics3Processor", "image_seq_len": 4}
    return _save(folder, kind(made), processor, tokenizer, image)


def idefics3(folder: Path) -> Path:
    """SmolVLM of the first generation: tiles with tokens of their places."""
    return _idefics(folder, Idefics3Config, Idefics3ForConditionalGeneration)


def smolvlm(folder: Path) -> Path:
    """SmolVLM of the second generation, with the same processor."""
    return _idefics(folder, SmolVLMConfig, SmolVLMForConditionalGeneration)


def _qwen(folder: Path, config: Any, kind: Any, vision: dict[str, Any], name: str) -> Path:
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(special)
    tokenizer.chat_template = TURNS.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    ids = {
        f"{part}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>")
        for part, word in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    text = {
        **NARROW,
        "vocab_size": len(tokenizer),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        "tie_word_embeddings": False,
    }
    made = config(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
    torch.manual_seed(0)
    image = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 8,
        "merge_size": 2,
        "min_pixels": 256,
        "max_pixels": 4096,
    }
    return _save(folder, kind(made), {"processor_class": name}, tokenizer, image)


def qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: as many tokens as the image is large, with places in three dimensions."""
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 8}
    return _qwen(folder, Qwen2VLConfig, Qwen2VLForConditionalGeneration, vision, "Qwen2VLProcessor")


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: the same with windows in the vision tower."""
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "patch_size": 8,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    return _qwen(folder, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision, "Qwen2_5_VLProcessor")


def gemma3(folder: Path) -> Path:
    """Gemma 3: image tokens that all see each other, layers with windows among others."""
    special = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    named = {"boi_token": special[0], "eoi_token": special[1], "image_token": special[2]}
    tokenizer = _tokenizer(special, extra_special_tokens=named)
    tokenizer.chat_template = TURNS.replace("IMAGE", "<start_of_image>")
    text = {
        **NARROW,
        "vocab_size": len(tokenizer),
        "head_dim": 8,
        "sliding_window": 1024,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "query_pre_attn_scalar": 8,
        "pad_token_id": 0,
    }
    config = Gemma3Config(
        text_config=text,
        vision_config={**EYES, "vision_use_head": False},
        mm_tokens_per_image=4,
        boi_token_id=tokenizer.convert_tokens_to_ids(special[0]),
        eoi_token_id=tokenizer.convert_tokens_to_ids(special[1]),
        image_token_id=tokenizer.convert_tokens_to_ids(special[2]),
    )
    torch.manual_seed(0)
    image = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 32, "width": 32}}
    processor = {"processor_class": "Gemma3Processor", "image_seq_length": 4}
    return _save(folder, Gemma3ForConditionalGeneration(config), processor, tokenizer, image)


ARCHITECTURES: dict[str, Callable[[Path], Path]] = {
    made.__name__: made for made in (llava, idefics3, smolvlm, qwen2_vl, qwen2_5_vl, gemma3)
}
