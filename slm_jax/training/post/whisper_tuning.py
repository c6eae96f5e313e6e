"""p(text | speech): Whisper learns tasks from specifiers or instructions (UniverSLU), or to transcribe from nothing.

All of its weights are trained but the encoder's sinusoids; or LoRA, and with it the table where it has new rows.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.assemblies.tuned_whisper import TunedWhisper, TunedWhisperConfig
from slm_jax.assemblies.whisper import WhisperConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.trees import matching
from slm_jax.data.corpus import CorpusConfig
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.interop.parts import existing
from slm_jax.nn.lora import LoRAConfig, LoRAModel, lora_initialise, merge_lora, with_lora
from slm_jax.objectives.heard_text import HeardText
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.sequence_models.expansion import expanded
from slm_jax.text.task_prompts import TaskPrompts
from slm_jax.text.whisper_tokens import FILES, PlainPromptsConfig, WhisperFolderConfig
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, described, host_share, trained
from slm_jax.training.loop import Evaluate
from slm_jax.training.part_record import RECORD, Parts, recorded_configs
from slm_jax.training.parts import check_parts, open_parts, planned_config, run_of
from slm_jax.training.post.held_out_answers import held_out_answers
from slm_jax.training.post.whisper_rows import AuxiliaryCTCConfig, WhisperRows
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.step import Player

WHISPER, BEGUN = "whisper", "params/whisper"
OWNED = matching("params/(?!whisper/encoder/positions)")
OWNED_BESIDE_LORA = matching("(lora|params/ctc)/")
OWNED_WITH_NEW_ROWS = matching("(lora|params/ctc|params/whisper/decoder/tokens)/")


class WhisperTuningStageConfig(GradientStageConfig):
    """Trains a Whisper on tasks.

    Where it begins, one of three
        `part`: weights from outside, `params/whisper` with `frozen=False`. `goes_on`: an earlier stage of this kind,
        with its LoRA in the weights. `model`: a shape whose weights are drawn.
    Tokens
        `tokens`: those of Whisper. `specifiers`: marks of tasks and data sets; the table gets new rows for those that
        it has not, behind those it has.
    Tasks
        `tasks`: one, or a mixture whose parts have one each as `example`. Their conversations hold one clip; the words
        beside it are specifiers or an instruction (see `text.task_prompts`).
    Shapes
        Clips of up to `clip_s` seconds, a window at most, in rows of `length` ids. What does not fit is left out and
        counted, never cut.
    `ctc`: a second term for the encoder. `evaluated`: held-out items of every task at most.
    """

    tasks: Config
    part: PartSource | None = None
    goes_on: str | None = None
    model: WhisperConfig | None = None
    tokens: PlainPromptsConfig | WhisperFolderConfig = PlainPromptsConfig()
    specifiers: tuple[str, ...] = ()
    ctc: AuxiliaryCTCConfig | None = None
    lora: LoRAConfig | None = None
    clip_s: float = 30.0
    length: int = 128
    evaluated: int = 32
    objective: NextTokenConfig = NextTokenConfig()

    def __post_init__(self) -> None:
        given = [self.part, self.goes_on, self.model]
        require(sum(one is not None for one in given) == 1, "part, goes_on and model", given, "one of them is given")
        require(isinstance(self.tasks, MixtureConfig | SpeechTaskConfig), "tasks", type(self.tasks).__name__, "a task")
        for part in self.mixture.parts:
            kind = type(part.example).__name__
            require(isinstance(part.example, SpeechTaskConfig), f"example of {part.name!r}", kind, "must be a task")
        spelt, known = set(self.ctc.tasks if self.ctc else ()), {part.name for part in self.mixture.parts}
        require(spelt <= known, "ctc.tasks", sorted(spelt), f"must be of {', '.join(sorted(known))}")
        if self.part is not None:
            place = (self.part.path, self.part.frozen)
            require(place == (BEGUN, False), "part", place, f"is {BEGUN}, and trained on")
        require(self.lora is None or self.model is None, "lora", "given", "drawn weights are trained as a whole")

    @property
    def mixture(self) -> MixtureConfig:
        """The tasks with their shares."""
        if isinstance(self.tasks, MixtureConfig):
            return self.tasks
        return MixtureConfig(parts=(PartConfig(name="task", weight=1.0, example=self.tasks),))

    @property
    def _rows(self) -> WhisperRows:
        return WhisperRows(self.name, self.mixture, self.clip_s, self.length, self.ctc)

    @property
    def parts(self) -> tuple[PartSource, ...]:
        """The weights from outside."""
        return () if self.part is None else (self.part,)

    @property
    def needs(self) -> tuple[str, ...]:
        return stages_of(self.parts) if self.goes_on is None else (self.goes_on,)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self.parts, begun)
        if isinstance(self.tokens, WhisperFolderConfig):
            existing(self.tokens.folder, "tokens.folder")

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, 16_000)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        parts = open_parts(self.parts, folder) if self.parts else None
        base = self._base(folder)
        model, prompts = self._tuned(self._grown(base)), self._prompts()
        found = [self._rows.usable(part, prompts, context, "train") for part in self.mixture.parts]
        sources = [(source, part.weight) for (source, _), part in zip(found, self.mixture.parts, strict=True)]
        return Plan(
            *self._learner(model),
            batches=make_batches(sources, [one for _, one in found], self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(model, prompts, context),
            start_from=None if self.model is not None else partial(self._begin, base, parts, context),
            speech_s=lambda batch: float(batch["sample_mask"].sum()) / context.corpus.rate_hz,
            meta={**(parts.meta if parts else {}), "specifiers": list(self.specifiers)},
        )

    def outline(self, run: RunConfig) -> Outline:
        model, rows = self._tuned(self.planned_model(run)), self.batches.batch
        return Outline(
            *self._learner(model),
            batch=self._rows.shapes(rows, run.corpus.rate_hz),
            tokens=rows * self.length,
            speech_s=rows * self.clip_s,
        )

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        made = [*super().run(folder, context), *([RECORD] if self.parts else [])]
        if not isinstance(self.tokens, WhisperFolderConfig):
            return made
        for name in FILES:
            shutil.copyfile(existing(self.tokens.folder) / name, folder.path / name)
        return [*made, *FILES]

    def model_of(self, folder: StageFolder) -> tuple[Config, str]:
        require(self.lora is None, f"stage {self.name!r}", "LoRA", "its weights are a model only together with that")
        return self._whole(folder), WHISPER

    def planned_model(self, run: RunConfig) -> WhisperConfig:
        if self.goes_on is not None:
            return self._grown(described(run, self.goes_on, WhisperTuningStageConfig).planned_model(run))
        base = self.model if self.part is None else planned_config(self.part, run)
        return self._grown(_as_whisper(base))

    def finished(self, folder: StageFolder) -> tuple[WhisperConfig, Any, TaskPrompts]:
        """Whisper, its parameters (with LoRA in them) and its prompts, once the stage in `folder` is done."""
        tokens = self.tokens
        if isinstance(tokens, WhisperFolderConfig):
            tokens = tokens.replace(folder=str(folder.path))
        prompts = TaskPrompts(tokens.make(), self.specifiers)
        return self._whole(folder), self._params(folder)[WHISPER], prompts

    def _base(self, folder: StageFolder) -> WhisperConfig:
        """What the stage in `folder` begins with, before there are new rows."""
        if self.goes_on is not None:
            earlier = run_of(folder).stage(self.goes_on)
            return WhisperTuningStageConfig.of(earlier)._whole(earlier)
        return _as_whisper(self.model if self.part is None else recorded_configs(folder)[self.part.path])

    def _whole(self, folder: StageFolder) -> WhisperConfig:
        return self._grown(self._base(folder))

    def _params(self, folder: StageFolder) -> dict[str, Any]:
        """What was trained, LoRA in the weights that it was beside."""
        variables = trained(folder)[1]
        return (
            variables["params"] if self.lora is None else merge_lora(variables["params"], variables["lora"], self.lora)
        )

    def _grown(self, base: WhisperConfig) -> WhisperConfig:
        """With rows for all specifiers."""
        wanted = self.tokens.size + len(self.specifiers)
        missing = wanted - base.decoder.vocabulary
        new = self.model is not None or missing <= len(self.specifiers)
        rule = f"the tokens are {self.tokens.size}: they are not of this model"
        require(new, "rows of the table", base.decoder.vocabulary, rule)
        return base if missing <= 0 else base.replace(decoder=base.decoder.replace(vocabulary=wanted))

    def _tuned(self, whisper: WhisperConfig) -> TunedWhisper | LoRAModel:
        window = whisper.encoder.window
        rule = f"a window of this model is {window / whisper.encoder.mel.rate_hz:g} s"
        require(self.clip_s * whisper.encoder.mel.rate_hz <= window, "clip_s", self.clip_s, rule)
        room = whisper.decoder.max_positions or self.length
        require(self.length <= room, "length", self.length, f"the decoder has {room} positions")
        classes = None if self.ctc is None else self.ctc.classes
        made = TunedWhisperConfig(whisper=whisper, classes=classes).make()
        return made if self.lora is None else with_lora(made, self.lora)

    def _prompts(self) -> TaskPrompts:
        tokens = self.tokens
        if isinstance(tokens, WhisperFolderConfig):
            tokens = tokens.replace(folder=str(existing(tokens.folder, "tokens.folder")))
        return TaskPrompts(tokens.make(), self.specifiers)

    def _learner(self, model: TunedWhisper | LoRAModel) -> Learner:
        plain = model.model if isinstance(model, LoRAModel) else model

        def initialise(key: jax.Array) -> dict[str, Any]:
            if self.lora is None:
                return _born(plain, key)
            return lora_initialise(partial(_born, plain), self.lora)(key)

        beside = OWNED_WITH_NEW_ROWS if self.specifiers else OWNED_BESIDE_LORA
        owns = OWNED if self.lora is None else beside
        player = Player(name="text", objective=self._objective(model), optimizer=self.optimizer, owns=owns)
        return initialise, [player]

    def _objective(self, model: TunedWhisper | LoRAModel) -> HeardText:
        return HeardText(model, self.objective, 0.0 if self.ctc is None else self.ctc.weight)

    def _evaluation(self, model: Any, prompts: TaskPrompts, context: StageContext) -> Evaluate | None:
        rows = self._rows.held_out(prompts, context, self.evaluated)
        if not any(rows.values()):
            context.say_unmeasured(self.name)
            return None
        return held_out_answers(self._objective(model), rows, self.batches.batch)

    def _begin(self, base: WhisperConfig, parts: Parts | None, context: StageContext) -> dict[str, Any]:
        """The weights that are there already, with rows for new specifiers."""
        params = self._earlier(context) if parts is None else meta.unbox(parts.start())
        extra = self._grown(base).decoder.vocabulary - base.decoder.vocabulary
        if extra == 0:
            return params
        whisper = params[WHISPER]
        _, decoder = expanded(base.decoder, whisper["decoder"], extra, jax.random.key(self.train.seed))
        return {**params, WHISPER: {**whisper, "decoder": decoder}}

    def _earlier(self, context: StageContext) -> dict[str, Any]:
        """Those of the stage that this one goes on from; its CTC where that spells in the same letters."""
        assert self.goes_on is not None  # for the type checker
        folder = context.finished(self.goes_on)
        before = WhisperTuningStageConfig.of(folder)
        same = before.ctc is not None and self.ctc is not None and before.ctc.tokenizer == self.ctc.tokenizer
        return {name: tree for name, tree in before._params(folder).items() if name == WHISPER or same}


def _born(model: TunedWhisper, key: jax.Array) -> dict[str, Any]:
    samples, ids = jnp.zeros((1, model.config.whisper.encoder.hop)), jnp.zeros((1, 2), jnp.int32)
    return model.init(key, samples, jnp.ones(samples.shape, bool), ids, jnp.ones(ids.shape, bool))


def _as_whisper(config: Config | None) -> WhisperConfig:
    require(isinstance(config, WhisperConfig), "model", type(config).__name__, "a Whisper is needed")
    assert isinstance(config, WhisperConfig)  # for the type checker
    return config
