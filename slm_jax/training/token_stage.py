"""Stages that make tokens: what language models, vocoders and judges may ask of one, whatever kind it is."""

import json
from typing import Any

from slm_jax.checkpoints.integrity import write_json
from slm_jax.core.config import from_json
from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import AnyPath
from slm_jax.core.token_spec import TokenSpec
from slm_jax.training.feature_passes import Clustered
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageConfig, StageContext

UNITS, SPEC = "units", "spec.json"
TOKENS = "tokens"
"""Where the checkpoints of a stage that reads tokens say which: it goes on with no others."""


class TokenStageConfig(StageConfig):
    """Writes, for every split, a table `units/<split>` whose columns `spec` names, and `spec.json` beside them."""

    def spec(self, context: StageContext) -> TokenSpec:
        """What the finished stage made: as its folder says, or as configs tell where an older version wrote none."""
        path = context.finished(self.name).path / SPEC
        return read_spec(path) if path.is_file() else self.found_spec(context)

    def found_spec(self, context: StageContext) -> TokenSpec:
        """The same as this config and the finished stages before it tell."""
        raise TypeError(f"{type(self).__name__} does not say what it makes")

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        """The same as far as the configs of a run tell: nothing needs to be done yet."""
        raise TypeError(f"{type(self).__name__} does not say what it will make")

    def items(self, context: StageContext, split: str) -> Any:
        """The items of the corpus that the table has a row for, in its order."""
        return context.source(split)

    @staticmethod
    def records(folder: StageFolder, split: str) -> AnyPath:
        """The tokens of a split, a row for every utterance in the order of the corpus."""
        return folder.path / UNITS / split

    def tokenizer(self, context: StageContext) -> Tokenizer:
        """The tokenizer of the finished stage."""
        raise TypeError(f"{type(self).__name__} has no tokenizer")

    def clustered(self, context: StageContext) -> Clustered | None:
        """The layer of an encoder whose frames are clustered into units; None where that is not what it does."""
        return None


def token_stage(context: StageContext, name: str) -> TokenStageConfig:
    """The finished stage `name`; raises `UserError` when it makes no tokens."""
    return _makes_tokens(StageConfig.of(context.finished(name)))


def planned_token_stage(run: RunConfig, name: str) -> TokenStageConfig:
    """Stage `name` of a run, which need not be done; raises `UserError` when it makes no tokens."""
    return _makes_tokens(run.stage(name))


def planned_spec(run: RunConfig, name: str) -> TokenSpec:
    """What stage `name` of a run will make; raises `UserError` when it makes no tokens."""
    return planned_token_stage(run, name).planned_spec(run)


def write_spec(folder: StageFolder, spec: TokenSpec) -> str:
    """Put the spec into a stage's folder; returns the name of the file, an artifact of the stage."""
    write_json(folder.path / SPEC, spec.to_json())
    return SPEC


def read_spec(path: AnyPath) -> TokenSpec:
    """What `write_spec` wrote; raises `UserError` when it is something else."""
    spec = from_json(json.loads(path.read_text(encoding="utf-8")))
    require(isinstance(spec, TokenSpec), "spec", str(path), "it does not say what tokens there are")
    assert isinstance(spec, TokenSpec)  # for the type checker
    return spec


def _makes_tokens(stage: StageConfig) -> TokenStageConfig:
    if not isinstance(stage, TokenStageConfig):
        raise UserError(f"stage {stage.name!r} is a {type(stage).__name__}: it makes no tokens")
    return stage
