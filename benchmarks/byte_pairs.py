"""A tokenizer for made-up base models, of benchmarks and of tests: byte pairs of given texts, and a chat template."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_pairs(texts: Iterable[str], words: int, special: Sequence[str]) -> Tokenizer:
    """At most `words` tokens, the `special` ones first, then every byte: nothing is unknown."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=words, special_tokens=list(special), initial_alphabet=alphabet)
    bpe.train_from_iterator(texts, trainer)
    return bpe
