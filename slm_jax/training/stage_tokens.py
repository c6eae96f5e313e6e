"""Tokens that a stage of the run has learnt, as later stages name them."""

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.stages import StageContext

TOKENIZER = "tokenizer.json"


class StageTokensConfig(Config):
    """The `tokenizer.json` that the earlier stage `stage` leaves."""

    stage: str


def tokens_of(tokens: Config, context: StageContext) -> Config:
    """The config that makes the tokens; raises `UserError` where the stage that is named leaves no tokenizer."""
    if not isinstance(tokens, StageTokensConfig):
        return tokens
    file = context.finished(tokens.stage).path / TOKENIZER
    require(file.is_file(), "tokens.stage", tokens.stage, f"leaves no {TOKENIZER}: its tokens are no file")
    return TokenizerFileConfig(path=str(file))
