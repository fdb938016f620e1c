"""A tiny base model on disk, for tests and for benchmarks that need a whole installation and no good model."""

import json
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"


def write_tiny_llama(folder: Path, head: int = 12) -> None:
    """Save a random Llama of four narrow layers with a real tokenizer, as any base model is.

    `head` is the width of its four heads; vLLM on CPUs takes 32 and more.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from benchmarks.byte_pairs import CHATML, byte_pairs

    texts = [text for file in sorted(EXAMPLES.glob("*/validation.jsonl")) for text in _texts(file)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(texts, 700, special),
        bos_token=special[1],
        eos_token=special[2],
        pad_token=special[2],
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=4 * head,
        intermediate_size=8 * head,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # wide, so that a short tuning gives hits; and drawn again, since the end token's (= padding's) starts as zero
        model.get_input_embeddings().weight.normal_(0, 0.45)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _texts(file: Path) -> list[str]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row[key] for row in rows for key in ("instruction", "input", "output") if row.get(key)]
