"""Tokens that were made shard by shard, elsewhere and before: a stage that takes them over without a copy."""

import json
from collections.abc import Sequence

from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import require
from slm_jax.core.paths import absolute, write_whole
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.corpora.report import INDEX, REPORT
from slm_jax.data.corpus import SPLITS
from slm_jax.data.records import INDEX_FILE, LENGTHS_FILE
from slm_jax.parallel.hosts import on_first_host
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.token_stage import SPEC, UNITS, TokenStageConfig, read_spec, write_spec
from slm_jax.training.tokenizer_source import TokenizerSourceConfig


class TokenFolderConfig(TokenStageConfig):
    """The tokens in `folder`, which `tokenize` made of the run's corpus by `source`.

    The shards stay where they are: the stage keeps their names and hashes. Raises `UserError` where the folder is not
    finished, or has other items than the corpus.
    """

    folder: str
    source: TokenizerSourceConfig
    kinds: tuple[str, ...] | None = None

    def check_outside(self, begun: StageFolder | None) -> None:
        for name in (REPORT, SPEC):
            rule = f"has no {name}: `tokenize` makes it, and goes on where it was stopped"
            require((absolute(self.folder) / name).is_file(), "folder", self.folder, rule)

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        return read_spec(absolute(self.folder) / SPEC)

    def found_spec(self, context: StageContext) -> TokenSpec:
        return read_spec(absolute(self.folder) / SPEC)

    def items(self, context: StageContext, split: str) -> object:
        return context.source(split, self.kinds)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        self.check_outside(None)
        on_first_host(lambda: self._take_over(folder, context))
        return [UNITS, on_first_host(lambda: write_spec(folder, self.found_spec(context)))]

    def tokenizer(self, context: StageContext) -> Tokenizer:
        return self.source.make()

    def _take_over(self, folder: StageFolder, context: StageContext) -> None:
        """A table for each split whose shards are those of the folder, by their full names."""
        place = absolute(self.folder)
        ids = json.loads((place / INDEX).read_text())
        for split in SPLITS:
            source = context.source(split, self.kinds)
            wanted = [source[i]["id"] for i in range(len(source))] if context.dry_run else list(source.ids)
            there = ids[split]["id"][: len(wanted) if context.dry_run else None]
            rule = f"has tokens of other items than split {split} of the corpus, or of fewer: see its rejected.jsonl"
            require(there == wanted, "folder", self.folder, rule)
            index = json.loads((place / split / INDEX_FILE).read_text())
            for shard in index["shards"]:
                shard["file"] = str(place / split / shard["file"])
            table = self.records(folder, split)
            table.mkdir(parents=True, exist_ok=True)
            (table / LENGTHS_FILE).write_bytes((place / split / LENGTHS_FILE).read_bytes())
            write_whole(table / INDEX_FILE, json.dumps(index, indent=1))
