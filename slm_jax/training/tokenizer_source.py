"""A tokenizer by the place where it lies: a stage of a run, or a codec; as a config, so that it travels."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import UserError, require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.interop.codecs import load_codec
from slm_jax.token_compression.dedup import dedup_row
from slm_jax.training.run_codec import is_run, run_codec
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageConfig, StageContext, read_run_config
from slm_jax.training.token_stage import TokenStageConfig


class TokenizerSourceConfig(Config):
    """`source`: a run folder, a codec as the hub lays it out, one that `convert` made, or `hub:NAME`.

    `stage`: of a run, the one that makes the tokens, or trained the codec; None: its last one that makes tokens, else
    its last codec. `books`: codebooks of a codec that are used.
    """

    source: str
    stage: str | None = None
    books: int | None = None

    def make(self) -> Tokenizer:
        """The tokenizer with its weights; raises `UserError` where there is none."""
        if not is_run(self.source):
            require(self.stage is None, "stage", self.stage, f"{self.source} is no run folder")
            return load_codec(self.source, self.books)
        found = self._token_stage()
        if found is None:
            return run_codec(Path(self.source), self.stage, self.books)
        require(self.books is None, "books", self.books, f"stage {found.name!r} says itself which books it uses")
        run = RunFolder(self.source)
        return found.tokenizer(StageContext(run, read_run_config(run).corpus, Path("data"), progress=False))

    def fingerprint(self) -> Any:
        """What changes when other tokens would come: the artifacts of the stage of a run, else the config alone."""
        if not is_run(self.source):
            return self.to_json()
        tokens = self._token_stage()
        name = self.stage if tokens is None else tokens.name
        if name is not None:
            folder = RunFolder(self.source).stage(name)
            return {name: folder.artifact_hash(), "consumed": folder.begun()["consumed"]}
        found = sorted((Path(self.source) / "stages").glob("*/done.json"))
        return {path.parent.name: json.loads(path.read_text())["artifact_hash"] for path in found}

    def _token_stage(self) -> TokenStageConfig | None:
        """The stage of the run that makes the tokens; None where it is a codec's."""
        run = RunFolder(self.source)
        names = [stage.name for stage in read_run_config(run).stages]
        require(self.stage is None or self.stage in names, "stage", self.stage, f"the run has {', '.join(names)}")
        for name in reversed(names) if self.stage is None else (self.stage,):
            folder = run.stage(name)
            stage = StageConfig.of(folder) if folder.is_done() else None
            if isinstance(stage, TokenStageConfig):
                return stage
        return None


def token_row(name: str, spec: TokenSpec, found: Any) -> dict[str, Any]:
    """A row of a table of tokens as stages write it, of what `Tokenizer.encode_all` gives for one recording."""
    columns = found if isinstance(found, dict) else {spec.columns[0]: found}
    if set(columns) != set(spec.columns):
        raise UserError(f"tokens are {sorted(columns)}: the tokenizer says that they are {sorted(spec.columns)}")
    row: dict[str, Any] = {"id": name}
    for column, book in zip(spec.columns, spec.codebooks, strict=True):
        row[column] = np.asarray(columns[column], np.int32 if book.is_discrete else np.float32)
    if spec.runs is not None and len(spec.columns) == 1:
        runs, durations = dedup_row(row[spec.columns[0]])
        row |= {spec.runs[0]: runs.astype(np.int32), str(spec.durations): durations.astype(np.int32)}
    return row
