"""p(text | speech, text): the stage in which a speech-aware text LM learns to answer (instructions, transcripts ...).

What is trained is what no frozen part owns: the adapter, LoRA, and parts that a `PartSource` does not freeze.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM, SpeechAwareLMConfig, encoder_name
from slm_jax.checkpoints.lazy import load_part
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.trees import matching
from slm_jax.data.corpus import CorpusConfig
from slm_jax.data.examples.speech_prompts import PromptLayout, SpeechPromptExample, problems, stacked
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.joined import Subset
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import Shapes
from slm_jax.nn.lora import LoRAConfig, LoRAModel, lora_initialise, with_lora
from slm_jax.objectives.answers import Answers
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.parallel.sharding import shardings_for, unbox
from slm_jax.text.marked_tokens import MarkedTokens
from slm_jax.text.templates import CHATML, Template
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share, trained
from slm_jax.training.loop import Evaluate
from slm_jax.training.part_record import Parts, recorded_configs
from slm_jax.training.parts import check_parts, open_parts, outlined
from slm_jax.training.post.clip_features import with_features
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.step import Player

TOKENIZER, FEATURES = "tokenizer.json", "features"
OWNED = matching("(params|lora)/")
DEV_BATCHES = 4
CACHE_BYTES = 20e9
"""Features up to so many bytes are kept where that is cheaper."""


class SpeechAwareStageConfig(GradientStageConfig):
    """Trains encoders, adapter and LM of a `SpeechAwareLM` on tasks.

    Parts
        `parts`: where the weights of `encoder` (`encoder_1` ...) and `lm` come from: `frozen/lm` keeps them as they
        are, `params/lm` with `frozen=False` trains them. `adapter` and, of several encoders, `join` are born here.
        `lora`: adapters on paths of the whole model, such as `lm/.*/attention/(query|value)`, which count
        `lora_factor` times in training and in what comes of it. `goes_on`: an earlier stage of this kind, whose trained
        weights are the start.
    Prompts
        `tokens` and `template` are those of the LM. `tasks`: one, or a mixture whose parts have one each as `example`.
        `targets`: "answers", or "all" words of a row.
    Shapes
        Clips of up to `clip_s` seconds, `clips` of them in a row of `length` entries. What does not fit is left out
        and counted, never cut.
    `cache`: keep what frozen encoders make of each clip; None: where that is cheaper, which the log says.
    """

    parts: tuple[PartSource, ...]
    adapter: Config
    tokens: Config
    tasks: Config
    template: Template = CHATML
    join: Config | None = None
    lora: LoRAConfig | None = None
    lora_factor: float = 1.0
    goes_on: str | None = None
    targets: str = "answers"
    clip_s: float = 10.0
    clips: int = 1
    length: int = 128
    cache: bool | None = None
    objective: NextTokenConfig = NextTokenConfig()

    def __post_init__(self) -> None:
        require(isinstance(self.tasks, MixtureConfig | SpeechTaskConfig), "tasks", type(self.tasks).__name__, "a task")
        counts = self.lora is not None or self.lora_factor == 1.0
        require(counts, "lora_factor", self.lora_factor, "there is no LoRA that it could weigh")
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
    def drawn(self) -> int:
        """Examples that training draws in all."""
        return self.train.steps * self.batches.batch

    @property
    def needs(self) -> tuple[str, ...]:
        before = () if self.goes_on is None else (self.goes_on,)
        return tuple(dict.fromkeys((*stages_of(self.parts), *before)))

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self.parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, 16_000)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        parts = open_parts(self.parts, folder)
        model = self.model(parts.configs)
        layout = self.layout(model.config, self.tokens.make())  # type: ignore[attr-defined]
        found = [self._part(part, layout, context, "train") for part in self.mixture.parts]
        if self._keeps_features(model, parts, sum(len(source) for source, _ in found), context):
            found = [self._featured(*one, model, parts, folder, context, i) for i, one in enumerate(found)]
        weights = [part.weight for part in self.mixture.parts]
        sources = [(source, weight) for (source, _), weight in zip(found, weights, strict=True)]
        examples = [example for _, example in found]
        frame_s = model.config.encoders[0].hop / context.corpus.rate_hz
        return Plan(
            *self._learner(model),
            batches=make_batches(sources, examples, self.batches, **host_share(self.train.mesh)),
            evaluate=self._evaluation(model, layout, context),
            parts=parts,
            start_from=None if self.goes_on is None else partial(self._earlier, context),
            speech_s=lambda batch: _speech_s(batch, frame_s, context.corpus.rate_hz),
            meta={"template": self.template.to_json()},
        )

    def outline(self, run: RunConfig) -> Outline:
        configs, shapes = outlined(self.parts, run)
        model, rows = self.model(configs), self.batches.batch
        return Outline(
            *self._learner(model),
            batch=self._shapes(rows, round(self.clip_s * run.corpus.rate_hz)),
            tokens=rows * self.length,
            speech_s=rows * self.clips * self.clip_s,
            frozen=shapes,
        )

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        made = super().run(folder, context)
        if not isinstance(self.tokens, TokenizerFileConfig):
            return made
        shutil.copyfile(self.tokens.path, folder.path / TOKENIZER)
        return [*made, TOKENIZER]

    def model(self, configs: dict[str, Config]) -> SpeechAwareLM | LoRAModel:
        """The parts of these configs (by path) put together, with LoRA where there is any."""
        by_name = {path.split("/", 1)[1]: config for path, config in configs.items()}
        names = [encoder_name(place) for place in range(len(by_name))]
        encoders = tuple(by_name[name] for name in names if name in by_name)
        require("lm" in by_name, "parts", sorted(configs), "one of them must be lm")
        config = SpeechAwareLMConfig(encoders=encoders, adapter=self.adapter, lm=by_name["lm"], join=self.join)
        if self.lora is None:
            return config.make()
        adapted = with_lora(config.make(), self.lora)
        return adapted if self.lora_factor == 1.0 else adapted.at(**{self.lora.name: self.lora_factor})

    def layout(self, config: SpeechAwareLMConfig, tokens: MarkedTokens) -> PromptLayout:
        """How conversations become rows of this model; raises `UserError` where the tokens do not fit its table."""
        rule = f"the table of the language model has {config.vocabulary} rows: they are not of one model"
        require(tokens.size <= config.vocabulary, "tokens", tokens.size, rule)
        return PromptLayout(tokens, self.template, config.frames_out, self.targets, config.window)

    def finished(self, folder: StageFolder) -> tuple[SpeechAwareLM | LoRAModel, PromptLayout, dict[str, Any]]:
        """Model, layout and trained variables of the stage in `folder`, once it is done."""
        model = self.model(recorded_configs(folder))
        kept = folder.path / TOKENIZER
        tokens = TokenizerFileConfig(path=str(kept)) if isinstance(self.tokens, TokenizerFileConfig) else self.tokens
        return model, self.layout(model.config, tokens.make()), trained(folder)[1]  # type: ignore[attr-defined]

    def _learner(self, model: SpeechAwareLM | LoRAModel) -> Learner:
        plain = model.model if isinstance(model, LoRAModel) else model
        frozen = {source.path.split("/", 1)[1] for source in self.parts if source.frozen}

        def initialise(key: jax.Array) -> dict[str, Any]:
            make = partial(_born, plain)
            variables = make(key) if self.lora is None else lora_initialise(make, self.lora)(key)
            own = {name: tree for name, tree in variables["params"].items() if name not in frozen}
            return {**variables, "params": own}

        objective = Answers(model, self.objective)
        return initialise, [Player(name="answers", objective=objective, optimizer=self.optimizer, owns=OWNED)]

    def _part(
        self, part: PartConfig, layout: PromptLayout, context: StageContext, split: str
    ) -> tuple[Subset, SpeechPromptExample]:
        """The items of a split that a task can use, and how they become examples; the others are counted."""
        task = part.example
        assert isinstance(task, SpeechTaskConfig)  # for the type checker
        rate_hz = context.corpus.rate_hz
        clip = round(self.clip_s * rate_hz)
        example = SpeechPromptExample(layout, task, rate_hz, clip, self.length, self.clips)
        source = context.source(split, task.kinds)
        if part.corpus is not None:
            source = Subset(source, source.places[part.corpus])
        kept, reasons = problems(example, source)
        if reasons:
            told = "; ".join(f"{count} ({reason})" for reason, count in reasons.items())
            context.say(f"stage {self.name}, {part.name}: of {len(source)} {split} items are left out: {told}")
        if split == "train" and not kept:
            raise UserError(
                f"stage {self.name!r}: no train item can be used for {part.name!r} ({reasons or 'none there'})"
            )
        return Subset(source, kept), example

    def _keeps_features(self, model: Any, parts: Parts, items: int, context: StageContext) -> bool:
        """Whether each clip is encoded once, which the log says with the reason."""
        encoders = [source for source in self.parts if source.path.split("/")[1].startswith("encoder")]
        possible = all(source.frozen for source in encoders) and self.join is None and jax.process_count() == 1
        if not possible or self.cache is False:
            return False
        config = model.config
        frames = config.frames_heard(round(self.clip_s * context.corpus.rate_hz))
        size, drawn = (
            4.0 * items * self.clips * frames * config.encoders[0].width,
            self.train.steps * self.batches.batch,
        )
        cheaper = drawn > items and size <= CACHE_BYTES
        if self.cache or cheaper:
            context.say(
                f"stage {self.name}: features of {items} items are kept (at most {size / 1e9:.2f} GB), since "
                f"{drawn} are drawn and the encoder is frozen"
            )
        return bool(self.cache or cheaper)

    def _featured(
        self,
        source: Any,
        example: SpeechPromptExample,
        model: Any,
        parts: Parts,
        folder: StageFolder,
        context: StageContext,
        number: int,
    ) -> tuple[Any, SpeechPromptExample]:
        boxed = parts.frozen["frozen"]["encoder"]
        params = {
            "encoder": load_part(unbox(boxed), shardings_for(boxed, self.train.mesh.make(), self.train.mesh.rules))
        }
        table = folder.path / FEATURES / str(number)
        found = with_features(source, example, model, params, table, f"{self.name} features", context.progress)
        frames = model.config.frames_heard(example.clip)
        return found, SpeechPromptExample(**{**vars(example), "frames": frames})

    def _evaluation(self, model: Any, layout: PromptLayout, context: StageContext) -> Evaluate | None:
        """Nats per word of held-out answers, and with the speech of other items."""
        rows = []
        for part in self.mixture.parts:
            source, example = self._part(part, layout, context, "dev")
            count = min(len(source), DEV_BATCHES * self.batches.batch)
            rows += [example(source[i], np.random.default_rng(i)) for i in range(count)]
        size = self.batches.batch
        batches = [stacked(rows[start : start + size]) for start in range(0, len(rows) - size + 1, size)]
        if not batches:
            context.say(f"stage {self.name}: fewer than {size} dev items: nothing is measured on them while training")
            return None
        objective = Answers(model, self.objective)
        loss = jax.jit(lambda variables, frozen, batch: objective(variables, batch, None, frozen).terms["answer"])

        def evaluate(state: Any, frozen: Any) -> dict[str, float]:
            own = [loss(state.served, frozen, batch) for batch in batches]
            other = [loss(state.served, frozen, with_other_speech(batch)) for batch in batches]
            return {"nats_per_word": _mean(own), "nats_per_word_other_speech": _mean(other)}

        return evaluate

    def _earlier(self, context: StageContext) -> dict[str, Any]:
        """The trained weights of the stage that this one goes on from."""
        assert self.goes_on is not None  # for the type checker
        return trained(context.finished(self.goes_on))[1]

    def _shapes(self, rows: int, clip: int) -> Shapes:
        def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *shape), dtype)

        clips = {"samples": array(np.float32, self.clips, clip), "sample_mask": array(np.bool_, self.clips, clip)}
        ids = {"ids": np.int32, "speech_at": np.int32, "mask": np.bool_, "target_weight": np.float32}
        row = {name: array(dtype, self.length) for name, dtype in ids.items()}
        return {**clips, **row, "example": array(np.int64)}


def with_other_speech(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every row with the clips of the next one."""
    heard = ("samples", "sample_mask", "features", "feature_mask")
    return {name: np.roll(value, -1, axis=0) if name in heard else value for name, value in batch.items()}


def _born(model: SpeechAwareLM, key: jax.Array) -> dict[str, Any]:
    samples = jnp.zeros((1, 1, 16_000))
    ids = jnp.zeros((1, 2), jnp.int32)
    return model.init(key, samples, jnp.ones(samples.shape, bool), ids, ids - 1, jnp.ones(ids.shape, bool))


def _speech_s(batch: dict[str, np.ndarray], frame_s: float, rate_hz: int) -> float:
    if "samples" in batch:
        return float(batch["sample_mask"].sum()) / rate_hz
    return float(batch["feature_mask"].sum()) * frame_s


def _mean(terms: Sequence[Any]) -> float:
    return float(sum(term.total for term in terms) / sum(term.count for term in terms))
