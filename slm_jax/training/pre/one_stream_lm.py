"""p(text, speech) in one stream of ids: a text LM whose table got rows for units goes on with documents of both.

Every stage of SpeechGPT (Zhang et al. 2023) and SpiRit-LM (Nguyen et al. 2024) is this one with other documents.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.checkpoints.manager import META, Checkpoints
from slm_jax.checkpoints.model_folder import open_params
from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.token_spec import TokenSpec
from slm_jax.core.trees import matching, together
from slm_jax.data.corpus import CorpusConfig
from slm_jax.data.examples.one_stream import DocumentConfig, DocumentExample, OneStream
from slm_jax.data.joined import Subset
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import packed_shapes
from slm_jax.evaluation.scoring import sequence_log_probs
from slm_jax.nn.lora import LoRAConfig, LoRAModel, merge_lora, with_lora
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.objectives.over_parts import OverParts
from slm_jax.parallel.sharding import unbox
from slm_jax.sequence_models.decoder import Decoder
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.expansion import expanded
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary
from slm_jax.text.joint_tokens import JointTokens
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.gradient_stage import (
    CHECKPOINTS,
    GradientStageConfig,
    Learner,
    Outline,
    Plan,
    host_share,
    trained,
)
from slm_jax.training.loop import Evaluate
from slm_jax.training.part_record import Parts, recorded_configs
from slm_jax.training.parts import check_parts, load_frozen, open_parts, outlined
from slm_jax.training.pre.heard_turns import SpeechStreamConfig, heard_items
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stage_tokens import TOKENIZER, StageTokensConfig, tokens_of
from slm_jax.training.stages import RunConfig, StageConfig, StageContext, require_form
from slm_jax.training.state import TrainState
from slm_jax.training.step import Player
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage

KEYS = ("ids", "target_weight")
DEV_ITEMS = 48
"""Held-out documents of each kind on which a stage is measured while it is trained."""


class OneStreamLMConfig(GradientStageConfig):
    """Trains a text LM on documents of text and speech, packed into rows of `row_length` ids.

    Ids
        Those of `tokens`, the text LM's; behind `text` of them (None: as many as the tokens have) the `marks`, then a
        range for each of `streams`, or with `marks_last` the marks behind the ranges. `begin` and `end`: the special
        tokens around a document.
    Model
        `lm`: the text LM, `PartSource(path="params", frozen=False)`, or what an earlier stage of this kind made of it;
        where its table lacks rows they are drawn (`sequence_models.expansion`), up to a multiple of `multiple`. With
        `lora` it stays as it is, `PartSource(path="frozen")`, and adapters on paths such as
        `blocks/.*/attention/(query|value)` are trained; its table must have all rows then.
    Documents
        `mixture`: shares; the `example` of each part is a `DocumentConfig`.
    Figures on the dev split: nats per id of the text and of the speech that count, of each part.
    """

    streams: tuple[SpeechStreamConfig, ...]
    mixture: MixtureConfig
    lm: PartSource
    marks: tuple[str, ...]
    tokens: Config = SpecialsConfig()
    text: int | None = None
    marks_last: bool = False
    begin: str = "<s>"
    end: str = "</s>"
    multiple: int = 8
    lora: LoRAConfig | None = None
    row_length: int = 256
    packing_bins: int = 4
    objective: NextTokenConfig = NextTokenConfig()

    def __post_init__(self) -> None:
        wanted = ("params", False) if self.lora is None else ("frozen", True)
        found = (self.lm.path, self.lm.frozen)
        rule = "the whole model: ('params', False) to train it, ('frozen', True) under LoRA"
        require(found == wanted, "lm's path and frozen", found, rule)
        names = [one.name for one in self.streams]
        require(bool(names) and len(set(names)) == len(names), "streams", names, "at least one, all names different")
        for part in self.mixture.parts:
            kind = type(part.example).__name__
            require(isinstance(part.example, DocumentConfig), f"example of {part.name!r}", kind, "must be a document")

    @property
    def needs(self) -> tuple[str, ...]:
        spelt = (self.tokens.stage,) if isinstance(self.tokens, StageTokensConfig) else ()
        return tuple(dict.fromkeys((*(one.stage for one in self.streams), *stages_of((self.lm,)), *spelt)))

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts((self.lm,), begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, corpus.rate_hz)

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        parts = open_parts((self.lm,), folder)
        specs = [token_stage(context, one.stage).spec(context) for one in self.streams]
        stream = self.stream(specs, tokens_of(self.tokens, context))
        self._require_same_ids(stream.tokens.vocabulary, context)
        base = self._decoder_of(parts.configs[self.lm.path])
        model = self.model(base, stream.tokens.vocabulary)
        found = [self._documents(part, stream, folder, context, "train") for part in self.mixture.parts]
        sources = [(source, part.weight) for (source, _), part in zip(found, self.mixture.parts, strict=True)]
        examples = [example for _, example in found]
        each_s = seconds_per_id(found)
        return Plan(
            *self._learner(model),
            batches=make_batches(sources, examples, self.batches, packing=self.packing, **host_share(self.train.mesh)),
            evaluate=self._evaluation(model, stream, folder, context),
            parts=parts,
            start_from=None if self.lora else partial(self._widened, base, model.config.vocabulary, parts),
            speech_s=lambda batch: float(stream.tokens.is_speech(batch["ids"]).sum()) * each_s,
            meta={TOKENS: [spec.to_json() for spec in specs], **stream.tokens.meta},
        )

    def outline(self, run: RunConfig) -> Outline:
        configs, shapes = outlined((self.lm,), run)
        specs = [planned_spec(run, one.stage) for one in self.streams]
        model = self.model(self._decoder_of(configs[self.lm.path]), self._planned_vocabulary(specs, run))
        row, rows = {"ids": np.zeros(1, np.int32), "target_weight": np.zeros(1, np.float32)}, self.batches.batch
        return Outline(
            *self._learner(model),
            batch=packed_shapes(row, self.packing, rows),
            tokens=rows * self.row_length,
            speech_s=rows * self.row_length / specs[0].frames_per_second,
            frozen=shapes if self.lora else None,
        )

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        made, tokens = super().run(folder, context), tokens_of(self.tokens, context)
        if not isinstance(tokens, TokenizerFileConfig):
            return made
        shutil.copyfile(tokens.path, folder.path / TOKENIZER)
        return [*made, TOKENIZER]

    def model_of(self, folder: StageFolder) -> tuple[DecoderConfig, str]:
        rule = "its base lies in another stage; serve the run, or train on without LoRA"
        require(self.lora is None, f"lora of stage {self.name!r}", self.lora, rule)
        base = self._decoder_of(recorded_configs(folder)[self.lm.path])
        return base.replace(vocabulary=trained_rows(folder)), ""

    def planned_model(self, run: RunConfig) -> DecoderConfig:
        base = self._decoder_of(outlined((self.lm,), run)[0][self.lm.path])
        specs = [planned_spec(run, one.stage) for one in self.streams]
        return self._wide(base, self._planned_vocabulary(specs, run))

    def stream(self, specs: Sequence[TokenSpec], tokens: Config) -> OneStream:
        """The id space over these tokens, and where speech comes from."""
        plain = tokens.make()  # type: ignore[attr-defined]
        joint = JointTokens(plain, self.vocabulary(specs, plain.size))
        return OneStream(joint, tuple(map(SpeechStreamConfig.of, self.streams, specs)), self.begin, self.end)

    def vocabulary(self, specs: Sequence[TokenSpec], text: int) -> ExpandedVocabulary:
        """Names for all ids, where the tokens have `text` ids."""
        ranges = tuple((one.name, one.size(spec)) for one, spec in zip(self.streams, specs, strict=True))
        rows = text if self.text is None else self.text
        return ExpandedVocabulary(text=rows, specials=self.marks, ranges=ranges, specials_last=self.marks_last)

    def model(self, base: DecoderConfig, vocabulary: ExpandedVocabulary) -> Decoder | LoRAModel:
        """The decoder with a row for every id, with LoRA where there is any."""
        model = self._wide(base, vocabulary).make()
        return model if self.lora is None else with_lora(model, self.lora)

    def finished(self, folder: StageFolder, context: StageContext) -> tuple[Decoder, Any, OneStream]:
        """Model, parameters (LoRA in them) and id space of the stage in `folder`, once it is done."""
        specs = [token_stage(context, one.stage).spec(context) for one in self.streams]
        kept = folder.path / TOKENIZER
        tokens = TokenizerFileConfig(path=str(kept)) if kept.is_file() else tokens_of(self.tokens, context)
        stream, variables = self.stream(specs, tokens), trained(folder)[1]
        require_kept_ids(folder, stream.tokens)
        model = self.model(self._decoder_of(recorded_configs(folder)[self.lm.path]), stream.tokens.vocabulary)
        frozen = load_frozen(context.run, self.name) if self.lora else None
        return *_merged(model, together(variables, frozen)), stream

    @property
    def packing(self) -> PackingConfig:
        """How documents share a row."""
        return PackingConfig(length=self.row_length, keys=KEYS, bins=self.packing_bins)

    def _wide(self, base: DecoderConfig, vocabulary: ExpandedVocabulary) -> DecoderConfig:
        extra = vocabulary.size - base.vocabulary
        require(self.lora is None or extra <= 0, "lm", base.vocabulary, f"rows, and there are {vocabulary.size} ids")
        rows = -(-vocabulary.size // self.multiple) * self.multiple if extra > 0 else base.vocabulary
        return base.replace(vocabulary=rows)

    def _widened(self, base: DecoderConfig, rows: int, parts: Parts) -> dict[str, Any]:
        """What training starts from: the text LM with rows for all ids."""
        given = unbox(parts.start())
        if rows == base.vocabulary:
            return {"params": given}
        return {"params": expanded(base, given, rows - base.vocabulary, jax.random.key(self.train.seed))[1]}

    def _decoder_of(self, config: Config) -> DecoderConfig:
        kind = type(config).__name__
        require(isinstance(config, DecoderConfig), "lm", kind, "must be a text LM: a decoder")
        return config  # type: ignore[return-value]

    def _planned_vocabulary(self, specs: Sequence[TokenSpec], run: RunConfig) -> ExpandedVocabulary:
        """The vocabulary as configs tell: of tokens in a file that is not there the rows of the text LM count."""
        if isinstance(self.tokens, SpecialsConfig):
            return self.vocabulary(specs, self.tokens.make().size)
        if self.text is None:
            raise UserError(f"text of stage {self.name!r} is None: state it where the tokens are a file")
        return self.vocabulary(specs, self.text)

    def _require_same_ids(self, vocabulary: ExpandedVocabulary, context: StageContext) -> None:
        """Raise `UserError`, with both shown, where the stage before reads other ids."""
        before = None if self.lm.stage is None else StageConfig.of(context.finished(self.lm.stage))
        if isinstance(before, OneStreamLMConfig):
            theirs = before.stream(
                [token_stage(context, one.stage).spec(context) for one in before.streams],
                tokens_of(before.tokens, context),
            ).tokens.vocabulary
            told = vocabulary.explain_difference(theirs)
            require(not told, f"ids of stage {self.name!r}", vocabulary.content_hash(), f"stage before: {told}")

    def _documents(
        self, part: PartConfig, stream: OneStream, folder: StageFolder, context: StageContext, split: str
    ) -> tuple[Subset, DocumentExample]:
        """The items that have a document of this kind, and how they become examples; the others are counted."""
        document = part.example
        assert isinstance(document, DocumentConfig)  # for the type checker
        table = heard_items(self.streams, document.kinds, folder.path, context, split)
        source = MixtureConfig(parts=(part,)).sources(table, getattr(table.sources[0], "places", {}))[0][0]
        example = DocumentExample(document, stream, self.row_length)
        kept = [place for place in range(len(source)) if example.fits(source[place])]
        if len(kept) < len(source):
            left = len(source) - len(kept)
            context.say(f"stage {self.name}, {part.name}: {left} of {len(source)} {split} items are left out")
        require(split != "train" or bool(kept), f"documents of {part.name!r}", len(kept), "no train item has one")
        return Subset(source, kept), example

    def _learner(self, model: Decoder | LoRAModel) -> Learner:
        ids, objective = jnp.zeros((1, 2), jnp.int32), self.objective.make(model)
        if self.lora is None:
            player = Player(name="lm", objective=objective, optimizer=self.optimizer)
            return lambda key: model.init(key, ids), [player]
        owns = matching("lora/")
        player = Player(name="lm", objective=OverParts(objective), optimizer=self.optimizer, owns=owns)
        return lambda key: {**model.init(key, ids), "params": {}}, [player]

    def _evaluation(
        self, model: Decoder | LoRAModel, stream: OneStream, folder: StageFolder, context: StageContext
    ) -> Evaluate | None:
        """Nats per id of held-out documents, text and speech apart."""
        rows: dict[str, list[Any]] = {}
        for part in self.mixture.parts:
            source, example = self._documents(part, stream, folder, context, "dev")
            some = range(min(len(source), DEV_ITEMS))
            rows[part.name] = [example(source[place], np.random.default_rng(place)) for place in some]
        measured = {name: own for name, own in rows.items() if own}
        if not measured:
            context.say_unmeasured(self.name)
            return None

        def evaluate(state: TrainState, frozen: Any) -> dict[str, float]:
            variables = together(state.served, frozen)
            return {
                f"{name}/nats_per_{kind}": value
                for name, own in measured.items()
                for kind, value in nats_by_kind(model, variables, own, stream.tokens).items()
            }

        return evaluate


def _merged(model: Decoder | LoRAModel, variables: Any) -> tuple[Decoder, Any]:
    """A plain model and its parameters, with what LoRA adds in them."""
    if isinstance(model, LoRAModel):
        return model.model, merge_lora(variables["params"], variables["lora"], model.configs)
    return model, variables["params"]


def nats_by_kind(
    model: Any, variables: Any, rows: Sequence[dict[str, np.ndarray]], tokens: JointTokens
) -> dict[str, float]:
    """Nats per id that counts: of `text` (marks among it) and of `unit`, as far as there are any."""
    scores = np.concatenate(sequence_log_probs(model, variables, [row["ids"] for row in rows]))
    targets, weights = (np.concatenate([row[name][1:] for row in rows]) for name in KEYS)
    heard, counts = tokens.is_speech(targets), weights > 0
    chosen = {"text": counts & ~heard, "unit": counts & heard}
    return {name: float(-scores[own].mean()) for name, own in chosen.items() if own.any()}


def seconds_per_id(found: Sequence[tuple[Subset, DocumentExample]]) -> float:
    """How much speech (seconds) an id of speech stands for in the mean of the first documents of each kind."""
    seconds, ids = 0.0, 0
    for source, example in found:
        for place in range(min(len(source), DEV_ITEMS)):
            one = example.stream.item(source[place]).whole
            if one is not None and one.columns[0] is not None:
                seconds += len(one.columns[0]) / example.stream.streams[0].rate
                ids += len(example.stream.speech(one.columns))  # type: ignore[arg-type]
    return seconds / max(ids, 1)


def require_kept_ids(folder: StageFolder, tokens: JointTokens) -> None:
    """Raise `UserError`, with both shown, where a stage was trained on other ids than these."""
    saved = Checkpoints(folder.path / CHECKPOINTS)
    kept = saved.read_json(saved.newest_sound(), META)["fixed"]["meta"]
    before, what = from_json(kept["vocabulary"]), f"of stage {folder.name!r}"
    assert isinstance(before, ExpandedVocabulary)  # for the type checker
    told = tokens.vocabulary.explain_difference(before)
    require(not told, f"ids {what}", tokens.vocabulary.content_hash(), f"it was trained on others: {told}")
    spelling = tokens.meta["spelling"]
    require(spelling == kept["spelling"], f"spelling {what}", spelling, f"it was trained on {kept['spelling']}")


def trained_rows(folder: StageFolder) -> int:
    """Rows of the table that a stage trained."""
    return int(open_params(folder.path / CHECKPOINTS, "params")["tokens"]["embedding"].shape[0])
