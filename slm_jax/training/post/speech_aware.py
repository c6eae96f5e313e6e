"""p(text | speech, text): the stage in which a speech-aware text LM learns to answer (instructions, transcripts ...).

What is trained is what no frozen part owns: the adapter, LoRA, and parts that a `PartSource` does not freeze.
"""

import shutil
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import numpy as np

from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.assemblies.codec_latents import hearing
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM, SpeechAwareLMConfig, encoder_name
from slm_jax.assemblies.unit_sequences import UnitSequences
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.trees import PathPredicate, flatten_by_path, matching, without
from slm_jax.data.corpus import RATE_HZ, CorpusConfig
from slm_jax.data.examples.described_tasks import GeneratedTaskConfig
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.joined import Subset
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import Shapes
from slm_jax.encoders.rolling import RollingEncoderConfig
from slm_jax.nn.lora import LoRAConfig, LoRAModel, with_lora
from slm_jax.nn.pacing import PaceConfig
from slm_jax.objectives.answers import Answers
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.sequence_models.listener import ListenerConfig
from slm_jax.text.marked_tokens import MarkedTokens
from slm_jax.text.templates import CHATML, Template
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share, trained
from slm_jax.training.loop import Evaluate
from slm_jax.training.part_record import recorded_configs
from slm_jax.training.parts import check_parts, open_parts, outlined
from slm_jax.training.post.clip_features import heard_s
from slm_jax.training.post.clip_units import ClipUnitsConfig, seconds_per_id
from slm_jax.training.post.clip_words import ClipWordsConfig, Writer
from slm_jax.training.post.dev_answers import on_answers
from slm_jax.training.post.going_on import check_frozen_parts, earlier_stage, other_stage, outside
from slm_jax.training.post.kept_features import KeptFeatures
from slm_jax.training.post.lm_targets import check_backbone
from slm_jax.training.post.speech_aware_form import Hears, batch_shapes, layers_of, new_variables
from slm_jax.training.post.speech_rows import SpeechRows, TaskItems
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stage_tokens import TOKENIZER, StageTokensConfig, tokens_of
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.step import Player
from slm_jax.training.token_stage import planned_spec

FEATURES = "features"
OWNED = matching("(params|lora)/")
DEV_BATCHES = 4


class SpeechAwareStageConfig(GradientStageConfig):
    """Trains encoders, adapter and LM of a `SpeechAwareLM` on tasks.

    Parts
        `parts`: where the weights of `encoder` (`encoder_1` ...) and `lm` come from: `frozen/lm` keeps them as they
        are, `params/lm` with `frozen=False` trains them; a codec in an encoder's place is heard as its latents.
        `adapter` and, of several encoders, `join` are born here, and so is `encoder` where it stands in the place of
        such a part. Of the adapter, weights at one path may be frozen, such as `frozen/adapter/segments/head`, a head
        that a CTC stage trained.
        `lora`: adapters on paths of the whole model, such as `lm/.*/attention/(query|value)`, which count `lora_factor`
        times in training and in what comes of it, or as much as `prompt_scale` reads off what is asked; the stage in
        which that is new goes on from one without. `goes_on`: an earlier stage of this kind, or the folder of one in
        another run (`RUN/stages/STAGE`), whose trained weights are the start. What an earlier one trained and this
        one freezes is a part of its own: `PartSource(path="frozen/encoder", source="stage:EARLIER", take="encoder")`.
        `kept`: paths of the whole model (a regular expression) that stay as they are though their part is not frozen,
        such as `lm/blocks`.
    Listening
        `listener`: clips take no place in rows, words listen to them instead. `paces`: how far a clip is read while an
        answer is written; in training each row draws one, what is measured goes at the first. `rolling`: encoders see
        (chunk, before) seconds at once, so that what they give is there as soon as a chunk is heard.
    Units
        `units`: clips are read as units of an earlier stage, and `encoder` is what reads them.
    Hearing
        `hears`: of each encoder several layers side by side, for an adapter that looks at each of them, or (None) its
        frames. `heard`: what is written down of every clip, where the template wants that behind its vectors.
    Prompts
        `tokens` and `template` are those of the LM; `StageTokensConfig` names the stage that learnt them. `tasks`: one,
        or a mixture whose parts have one each as `example`. `targets`: "answers", or "all" words of a row.
    Shapes
        Clips of up to `clip_s` seconds, `clips` of them in a row of `length` entries. An encoder-decoder has answers
        apart, of up to `written` ids. `asked`: ids of an instruction, which goes with `prompt_scale`. What does not fit
        is left out and counted, never cut.
    `cache`: keep what frozen encoders make of each clip; None: where that is cheaper, which the log says.
    """

    parts: tuple[PartSource, ...]
    adapter: Config
    tokens: Config
    tasks: Config
    template: Template = CHATML
    join: Config | None = None
    encoder: Config | None = None
    hears: tuple[Hears, ...] = ()
    listener: ListenerConfig | None = None
    paces: tuple[PaceConfig | None, ...] = (None,)
    rolling: tuple[float, float] | None = None
    units: ClipUnitsConfig | None = None
    heard: ClipWordsConfig | None = None
    lora: LoRAConfig | None = None
    lora_factor: float = 1.0
    prompt_scale: PromptScaleConfig | None = None
    goes_on: str | None = None
    kept: str | None = None
    targets: str = "answers"
    clip_s: float = 10.0
    clips: int = 1
    length: int = 128
    written: int | None = None
    asked: int | None = None
    cache: bool | None = None
    objective: NextTokenConfig = NextTokenConfig()

    def __post_init__(self) -> None:
        require(isinstance(self.tasks, MixtureConfig | SpeechTaskConfig), "tasks", type(self.tasks).__name__, "a task")
        weighs = self.lora is not None or self.lora_factor == 1.0
        require(weighs, "lora_factor", self.lora_factor, "there is no LoRA to count so many times")
        wanted = (self.heard is not None) == (self.template.heard is not None)
        require(wanted, "heard", self.heard, f"goes with a template that puts it somewhere: {self.template.heard!r}")
        scaled = self.prompt_scale is not None
        require(not scaled or self.lora is not None, "prompt_scale", self.prompt_scale, "there is no LoRA to count")
        require((self.asked is not None) == scaled, "asked", self.asked, "goes with prompt_scale, which reads it")
        paced = self.paces != (None,)
        require(len(self.paces) > 0, "paces", self.paces, "at least one; None reads all of a clip first")
        require(not paced or self.listener is not None, "paces", self.paces, "go with a listener")
        require(not paced or self.targets == "answers", "targets", self.targets, "a pace counts the ids of answers")
        for part in self.mixture.parts:
            kind = type(part.example).__name__
            require(isinstance(part.example, SpeechTaskConfig), f"example of {part.name!r}", kind, "must be a task")

    @property
    def mixture(self) -> MixtureConfig:
        """The tasks with their shares."""
        if isinstance(self.tasks, MixtureConfig):
            return self.tasks
        return MixtureConfig(parts=(PartConfig(name="task", weight=1.0, example=self.tasks),))

    @property
    def needs(self) -> tuple[str, ...]:
        before = () if self.goes_on is None or outside(self.goes_on) else (self.goes_on,)
        read = () if self.units is None else (self.units.stage,)
        spelt = (self.tokens.stage,) if isinstance(self.tokens, StageTokensConfig) else ()
        told = () if self.heard is None or self.heard.stage is None else (self.heard.stage,)
        asked = [part.example for part in self.mixture.parts]
        wrote = (task.stage for task in asked if isinstance(task, GeneratedTaskConfig))
        return tuple(dict.fromkeys((*stages_of(self.parts), *read, *spelt, *told, *wrote, *before)))

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self.parts, begun)
        if self.heard is not None:
            self.heard.check()
        if self.goes_on is not None and outside(self.goes_on):
            other_stage(self.goes_on)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, RATE_HZ)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        parts = open_parts(self.parts, folder)
        check_backbone(self.mixture, parts, self.name, context)
        if self.goes_on is not None:
            earlier = earlier_stage(self.goes_on, context)
            theirs = SpeechAwareStageConfig.of(earlier).lora
            require(theirs is None or self.lora == theirs, "lora", self.lora, f"stage {earlier.name!r} has {theirs}")
            check_frozen_parts(parts, earlier)
        model = self.model(parts.configs)
        layout = self.layout(model.config, tokens_of(self.tokens, context).make())  # type: ignore[attr-defined]
        frame_s = model.config.encoders[0].hop / context.corpus.rate_hz
        rows = self._rows(layout, frame_s)
        found = [rows.of(part, folder, context, "train") for part in self.mixture.parts]
        measured = self._measured(rows, folder, context)
        kept, drawn = self._kept(model, context), self.train.steps * self.batches.batch
        if kept.wanted(self.cache, sum(len(source) for source, _ in found), drawn, self.clips * self.clip_s, context):
            found, measured = kept.beside(found, parts, context), kept.beside(measured, parts, context)
        weights = [part.weight for part in self.mixture.parts]
        sources = [(source, weight) for (source, _), weight in zip(found, weights, strict=True)]
        examples, rate_hz = [example for _, example in found], context.corpus.rate_hz
        entry_s = 1 / rate_hz if self.units is None else seconds_per_id(found[0][0], rate_hz)
        return Plan(
            *self._learner(model),
            batches=make_batches(sources, examples, self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(model, measured, context),
            parts=parts,
            start_from=None if self.goes_on is None else partial(self._earlier, context),
            speech_s=partial(heard_s, frame_s, entry_s),
            meta={"template": self.template.to_json(), **self._written_by(context)},
        )

    def outline(self, run: RunConfig) -> Outline:
        configs, shapes = outlined(self.parts, run)
        model, rows = self.model(configs), self.batches.batch
        clip = round(self.clip_s * run.corpus.rate_hz)
        if self.units is not None:
            clip = self.units.room(planned_spec(run, self.units.stage), self.encoder, clip)
        return Outline(
            *self._learner(model),
            batch=self._shapes(rows, clip, model.config.reads),
            tokens=rows * (self.length + (self.written or 0)),
            speech_s=rows * self.clips * self.clip_s,
            frozen=shapes,
        )

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        made, tokens = super().run(folder, context), tokens_of(self.tokens, context)
        if not isinstance(tokens, TokenizerFileConfig):
            return made
        shutil.copyfile(tokens.path, folder.path / TOKENIZER)
        return [*made, TOKENIZER]

    def model_of(self, folder: StageFolder) -> tuple[SpeechAwareLMConfig, str]:
        return self.model(recorded_configs(folder)).config, ""

    def planned_model(self, run: RunConfig) -> SpeechAwareLMConfig:
        return self.model(outlined(self.parts, run)[0]).config

    def model(self, configs: dict[str, Config]) -> SpeechAwareLM | LoRAModel:
        """The parts of these configs (by path) put together, with LoRA where there is any."""
        named = {path.split("/", 1)[-1]: config for path, config in configs.items()}
        by_name = {name: config for name, config in named.items() if not name.startswith("adapter/")}
        if self.encoder is not None:
            require("encoder" not in by_name, "encoder", type(self.encoder).__name__, "stands in the place of a part")
            by_name["encoder"] = self.encoder
        names = [encoder_name(place) for place in range(len(by_name) - 1)]
        complete = len(by_name) > 1 and by_name.keys() == {"lm", *names}
        require(complete, "parts", sorted(configs), "must be lm and encoder (then encoder_1 ...), in frozen or params")
        heard = [self._rolled(hearing(by_name[name], RATE_HZ)) for name in names]
        config = SpeechAwareLMConfig(
            encoders=layers_of(self.hears, heard),
            adapter=self.adapter,
            lm=by_name["lm"],
            join=self.join,
            prompt_scale=self.prompt_scale,
            listener=self.listener,
        )
        fits = (config.reads == "float32") == (self.units is None)
        require(fits, "units", self.units, f"go with an encoder that reads them; here it reads {config.reads}")
        made = SpeechAwareLM(config, self.paces)
        if self.lora is None:
            return made
        adapted = with_lora(made, self.lora)
        return adapted if self.lora_factor == 1.0 else adapted.at(**{self.lora.name: self.lora_factor})

    def _rolled(self, encoder: Any) -> Any:
        """The encoder, chunk by chunk where it is to hear so."""
        if self.rolling is None:
            return encoder
        chunk, before = (round(seconds * RATE_HZ) for seconds in self.rolling)
        return RollingEncoderConfig(encoder=encoder, chunk=chunk, before=before)

    def layout(self, config: SpeechAwareLMConfig, tokens: MarkedTokens) -> PromptLayout:
        """How conversations become rows of this model; raises `UserError` where the tokens do not fit its table."""
        rule = f"the table of the language model has {config.vocabulary} rows: they are not of one model"
        require(tokens.size <= config.vocabulary, "tokens", tokens.size, rule)
        apart = config.answers_apart
        require((self.written is not None) == apart, "written", self.written, "goes with an encoder-decoder as lm")
        require(not apart or self.targets == "answers", "targets", self.targets, "an encoder-decoder writes answers")
        for field, stack in (("length", config.reader), ("written", config.writer)):
            size, most = getattr(self, field), stack.max_positions
            require(most is None or (size or 0) <= most, field, size, f"the language model has {most} positions")
        apart = config.listener is not None
        return PromptLayout(tokens, self.template, config.frames_out, self.targets, config.window, apart)

    def finished(self, folder: StageFolder) -> tuple[SpeechAwareLM | LoRAModel, PromptLayout, dict[str, Any]]:
        """Model, layout and trained variables of the stage in `folder`, once it is done."""
        model = self.model(recorded_configs(folder))
        kept = folder.path / TOKENIZER
        tokens = TokenizerFileConfig(path=str(kept)) if kept.is_file() else self.tokens
        model = model.clone(paces=(None,))  # how it is decoded is for the system to say
        return model, self.layout(model.config, tokens.make()), trained(folder)[1]  # type: ignore[attr-defined]

    def _learner(self, model: SpeechAwareLM | LoRAModel) -> Learner:
        def initialise(key: jax.Array) -> dict[str, Any]:
            variables = new_variables(model, key)
            for name in self._frozen:
                there = any(path.startswith(f"{name}/") for path in flatten_by_path(variables["params"]))
                require(there, "parts", name, "the model has no such part")
            return {**variables, "params": self._own(variables["params"])}

        learns = self.objective_of(model)
        return initialise, [Player(name="answers", objective=learns, optimizer=self.optimizer, owns=self._owned)]

    def objective_of(self, model: SpeechAwareLM | LoRAModel) -> Any:
        """What is learnt."""
        return Answers(model, self.objective)

    @property
    def _owned(self) -> PathPredicate:
        """What is trained."""
        if self.kept is None:
            return OWNED
        kept = matching(f"params/(?:{self.kept})")
        return lambda path: OWNED(path) and not kept(path)

    def sequences(self, context: StageContext) -> UnitSequences | None:
        """What makes units of clips; None where samples are read."""
        return None if self.units is None else self.units.sequences(context)

    def writer(self, context: StageContext) -> Writer | None:
        """What writes down clips; None where nobody wants that."""
        return None if self.heard is None else self.heard.writer(context)

    def _written_by(self, context: StageContext) -> dict[str, str]:
        return {} if self.heard is None else {"heard": self.heard.fingerprint(context)}

    def _rows(self, layout: PromptLayout, frame_s: float) -> SpeechRows:
        """How items become rows; `frame_s`: seconds from one frame of the (first) encoder to the next."""
        room = {name: getattr(self, name) for name in ("clip_s", "clips", "length", "written", "asked")}
        return SpeechRows(self.name, layout, self.encoder, self.units, self.heard, **room)  # type: ignore[arg-type]

    def _kept(self, model: SpeechAwareLM | LoRAModel, context: StageContext) -> KeptFeatures:
        """What frozen encoders make of the clips, where each clip is encoded once."""
        return KeptFeatures(
            stage=self.name,
            model=model,
            frozen=frozenset(self._frozen),
            born=jax.eval_shape(partial(new_variables, model), jax.random.key(0)),
            mesh=self.train.mesh,
            tables=context.run.path / FEATURES,
        )

    def _measured(self, rows: SpeechRows, folder: StageFolder, context: StageContext) -> list[TaskItems]:
        """The first held-out items of each task."""
        found = [rows.of(part, folder, context, "dev") for part in self.mixture.parts]
        most = DEV_BATCHES * self.batches.batch
        return [(Subset(source, range(min(len(source), most))), example) for source, example in found if len(source)]

    def _evaluation(self, model: Any, measured: Sequence[TaskItems], context: StageContext) -> Evaluate | None:
        """Nats per word of held-out answers, and with the speech of other items."""
        rows = [
            example(source[i], np.random.default_rng(i)) for source, example in measured for i in range(len(source))
        ]
        evaluate = on_answers(Answers(model, self.objective), rows, self.batches.batch)
        if evaluate is None:
            few = f"fewer than {self.batches.batch} dev items"
            context.say(f"stage {self.name}: {few}: nothing is measured on them while training")
        return evaluate

    def _earlier(self, context: StageContext) -> dict[str, Any]:
        """What the stage that this one goes on from trained, of what is trained here."""
        assert self.goes_on is not None  # for the type checker
        variables = trained(earlier_stage(self.goes_on, context))[1]
        return {**variables, "params": self._own(variables["params"])}

    @property
    def _frozen(self) -> set[str]:
        """Names of the parts that are not trained."""
        return {source.path.split("/", 1)[-1] for source in self.parts if source.frozen}

    def _own(self, params: dict[str, Any]) -> dict[str, Any]:
        """What is trained."""
        return reduce(without, self._frozen, params)

    def _shapes(self, rows: int, clip: int, reads: str) -> Shapes:
        """The arrays of a batch."""
        return batch_shapes(self, rows, clip, reads)
