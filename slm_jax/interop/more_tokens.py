"""A text LM that reads more marks than it was made with: task tags, turns of speakers, ends of clips."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.errors import UserError, require
from slm_jax.interop.hub import carried
from slm_jax.interop.parts import existing, open_source
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.expansion import expanded

TOKENIZER = "tokenizer.json"


def with_tokens(source: str, destination: str | Path, tokens: Sequence[str], seed: int = 0) -> DecoderConfig:
    """The text LM in a folder (or `hub:NAME`) as a model folder that knows `tokens` as special ones; its config.

    They follow the ids of `tokenizer.json`, in this order; where the table has no rows for them yet, rows are drawn at
    its own spread (`sequence_models.expansion`). Everything else stays as it was. Raises `UserError` where the folder
    holds no decoder with a tokenizer, and for a token that it knows already.
    """
    folder = existing(source)
    config, params = open_source(source)
    require(isinstance(config, DecoderConfig), "source", type(config).__name__, "must be a text LM: a decoder")
    assert isinstance(config, DecoderConfig)  # for the type checker
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(shutil.copy(file, scratch)) for file in carried(folder)]
        size = add_tokens(Path(scratch) / TOKENIZER, tokens)
        if size > config.vocabulary:
            config, params = expanded(config, params, size - config.vocabulary, jax.random.key(seed))
        save_model(destination, config, params, {"source": source, "tokens": list(tokens)}, files)
    return config


def add_tokens(file: Path, tokens: Sequence[str]) -> int:
    """Let the tokenizer in a file know `tokens` as special ones; how many ids it has then."""
    from tokenizers import AddedToken, Tokenizer  # compiled: loaded when used

    require(len(set(tokens)) == len(tokens) > 0, "tokens", list(tokens), "one at least, all different")
    require(file.is_file(), "source", file.name, "a text LM without a tokenizer cannot learn more tokens")
    try:
        tokenizer: Any = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{file.name} of the source is no tokenizer file ({error})") from error
    known = [token for token in tokens if tokenizer.token_to_id(token) is not None]
    require(not known, "tokens", known, "the tokenizer knows them already")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.save(str(file))
    return int(tokenizer.get_vocab_size())
