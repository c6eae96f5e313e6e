"""A `tokenizer.json` of byte pairs with special tokens, as published with language models."""

from pathlib import Path

TEXTS = ("user: cat end", "a cat and a dog: the end", "what is said: cat", "assistant: cat") * 4


def write_subwords(file: Path, size: int = 290) -> Path:
    """Byte pairs learnt from a few texts, up to `size` ids in all; special tokens `<pad>`, `<s>` and `</s>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.save(str(file))
    return file
