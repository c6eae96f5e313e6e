"""What stages share that learn from the texts of a corpus: their tokens, and a table of the texts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath
from slm_jax.data.records import INDEX_FILE, RecordSource, file_sha256, write_records
from slm_jax.parallel.hosts import on_first_host
from slm_jax.text.learnt_tokens import LearntTokensConfig
from slm_jax.text.marked_tokens import MarkedTokens, SpecialsConfig
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import GradientStageConfig
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stage_tokens import TOKENIZER
from slm_jax.training.stages import StageContext

TEXTS = "texts"


class TextStageConfig(GradientStageConfig):
    """A stage that reads the `text` of items of these `kinds` (None: the usual ones); items without are left out.

    `tokens`: bytes or characters behind specials (`SpecialsConfig`), a `TokenizerFileConfig`, or a
    `LearntTokensConfig`, whose merges are learnt from the texts of `train`. `begin` and `end`: the special tokens
    around a text. Leaves `texts/<split>` and, of tokens that are a file, `tokenizer.json`.
    """

    tokens: Config = SpecialsConfig()
    kinds: tuple[str, ...] | None = None
    begin: str = "<s>"
    end: str = "</s>"

    def check_outside(self, begun: StageFolder | None) -> None:
        kept = begun is not None and (begun.path / TOKENIZER).is_file()
        if isinstance(self.tokens, TokenizerFileConfig) and not kept:
            self.tokens.make()

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        made = [*super().run(folder, context), TEXTS]
        return [*made, TOKENIZER] if self._has_file else made

    def texts(self, folder: StageFolder, context: StageContext, split: str) -> RecordSource:
        """The table of `id` and `text` of a split, made when it is not there."""
        table = folder.path / TEXTS / split
        on_first_host(lambda: None if (table / INDEX_FILE).is_file() else self._write(table, context, split))
        return RecordSource(table)

    def made_tokens(self, folder: StageFolder, context: StageContext) -> MarkedTokens:
        """The tokens; those of a file are kept in the stage's folder first."""
        kept = folder.path / TOKENIZER
        if self._has_file:
            on_first_host(lambda: None if kept.is_file() else self._keep(kept, folder, context))
        return self.kept_tokens(folder).make()  # type: ignore[attr-defined]

    def kept_tokens(self, folder: StageFolder) -> Config:
        """What makes the tokens of the stage in `folder`, once it has begun; the form that later stages take."""
        return TokenizerFileConfig(path=str(folder.path / TOKENIZER)) if self._has_file else self.tokens

    def meta(self, folder: StageFolder, tokens: MarkedTokens) -> dict[str, Any]:
        """What must agree when the stage resumes."""
        file = folder.path / TOKENIZER
        return {"token_ids": tokens.size, "tokenizer": file_sha256(file) if self._has_file else None}

    @property
    def _has_file(self) -> bool:
        return isinstance(self.tokens, TokenizerFileConfig | LearntTokensConfig)

    def _write(self, table: AnyPath, context: StageContext, split: str) -> None:
        source = context.source(split, self.kinds)
        items = (source[place] for place in range(len(source)))
        write_records(table, ({"id": item["id"], "text": item["text"]} for item in items if item["text"].strip()))
        found = len(RecordSource(table))
        context.say(f"stage {self.name}: {found} of {len(source)} {split} items have a text")
        require(split != "train" or found > 0, "texts", found, f"stage {self.name!r} needs items of train with a text")

    def _keep(self, kept: AnyPath, folder: StageFolder, context: StageContext) -> None:
        if isinstance(self.tokens, TokenizerFileConfig):
            shutil.copyfile(self.tokens.path, Path(kept))
        elif isinstance(self.tokens, LearntTokensConfig):
            table = self.texts(folder, context, "train")
            kept.write_text(self.tokens.learn(table[place]["text"] for place in range(len(table))), encoding="utf-8")


def require_rows(stage: str, rows: int, needed: int) -> None:
    """Raise `UserError` unless the table of the stage's model has a row for each of so many ids."""
    require(rows >= needed, f"{stage}.model.vocabulary", rows, f"its tokens are {needed} ids")
