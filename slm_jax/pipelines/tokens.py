"""Units or codes of every recording of a corpus, as tables of tokens that language models are trained on."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import UserError, require
from slm_jax.data.corpora.settings import CorpusConfig
from slm_jax.data.corpora.splits import SPLITS
from slm_jax.data.corpus import kinds_of, open_corpus
from slm_jax.data.examples.speech_tasks import mono
from slm_jax.data.prepare import find_prepared
from slm_jax.data.shards.work import Left, Row, ShardWork
from slm_jax.training.token_stage import SPEC
from slm_jax.training.tokenizer_source import TokenizerSourceConfig, token_row

REASONS = {
    "damaged": "the item cannot be read",
    "no_tokens": "the tokenizer refuses it: shorter than a frame, or not finite",
}


class TokenShardsConfig(ShardWork):
    """The tokens of every item of the prepared `corpus` in `data_dir`, as `tokenizer` makes them of it alone.

    `kinds`: of its items; None: those that it gives unless asked otherwise. Several channels are averaged. `spec.json`
    says what the tokens are; a stage of a run takes them over by `TokenFolderConfig`.
    """

    FREE = ("data_dir",)

    corpus: CorpusConfig
    tokenizer: TokenizerSourceConfig
    kinds: tuple[str, ...] | None = None
    data_dir: str = "data"

    columns: ClassVar[tuple[str, ...]] = ("id",)
    reasons: ClassVar[Mapping[str, str]] = REASONS

    def check(self) -> None:
        find_prepared(self.corpus, self.data_dir)
        known = kinds_of(self.corpus, self.data_dir)
        missing = set(self.kinds or ()) - set(known)
        require(not missing, "kinds", self.kinds, f"the corpus has {', '.join(known)}")

    def inputs(self) -> dict[str, Any]:
        corpus = find_prepared(self.corpus, self.data_dir).parent.name
        return {"corpus": corpus, "tokenizer": self.tokenizer.fingerprint()}

    def counts(self) -> dict[str, int]:
        return {split: len(_source(self, split)) for split in SPLITS}

    def rows(self, table: str, places: range) -> Iterator[Row | Left]:
        source, tokenizer = _source(self, table), _tokenizer(self.tokenizer)
        for place in places:
            name, samples = source.ids[place], None
            try:
                samples = self._heard(source[place], tokenizer)
                yield token_row(name, tokenizer.spec, tokenizer.encode_all([samples])[0])
            except UserError as error:
                yield Left(name, "damaged" if samples is None else "no_tokens", str(error))

    def extras(self) -> dict[str, Any]:
        return {SPEC: _tokenizer(self.tokenizer).spec.to_json()}

    def _heard(self, item: dict[str, Any], tokenizer: Tokenizer) -> np.ndarray:
        rate_hz = tokenizer.spec.rate_hz
        samples = mono(item)
        return samples if self.corpus.rate_hz == rate_hz else resample(samples, self.corpus.rate_hz, rate_hz)


@functools.lru_cache(maxsize=2)
def _tokenizer(source: TokenizerSourceConfig) -> Tokenizer:
    """The tokenizer, opened once in a process."""
    return source.make()


@functools.lru_cache(maxsize=6)
def _source(work: TokenShardsConfig, split: str) -> Any:
    return open_corpus(work.corpus, work.data_dir, split, kinds=work.kinds)
