"""Byte-pair encoding learnt from texts, as a `tokenizer.json`."""

from collections.abc import Iterable

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.text.marked_tokens import SPECIALS

BYTES = 256


class LearntTokensConfig(Config):
    """Special tokens, all bytes, and merges of them until there are `size` ids or no pair occurs twice."""

    size: int = 512
    specials: tuple[str, ...] = SPECIALS

    def __post_init__(self) -> None:
        least = BYTES + len(self.specials)
        require(self.size >= least, "size", self.size, f"at least {least}: bytes and specials")

    def learn(self, texts: Iterable[str]) -> str:
        """The JSON of the tokenizer, for `TokenizerFileConfig`; equal texts give equal JSON."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # compiled: loaded when used

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=self.size,
            min_frequency=2,
            show_progress=False,
            special_tokens=list(self.specials),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer.to_str()
