"""Implicit alignment: what a text language model answers about a description of each clip, as targets for the clip.

    targets = LMTargetsConfig(name="targets", part=PartSource(path="frozen/lm", source="models/llm"), ...)
    answers = SpeechAwareStageConfig(name="answers", tasks=targets.learnt, ...)

The language model that hears learns to answer speech as it answers text itself (BLSP, arXiv 2309.00916; DeSTA2, arXiv
2409.20007), so that nothing of it has to change: it is the one that wrote the targets, which is held by its hash.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from slm_jax.checkpoints.lazy import load_part
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation
from slm_jax.core.part_source import PartSource
from slm_jax.core.paths import AnyPath, remove_tree
from slm_jax.data.examples.described_tasks import DRAW, TARGET, DescribedTaskConfig, GeneratedTaskConfig
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.joined import Joined
from slm_jax.data.mixture import MixtureConfig, PartConfig, of_corpus
from slm_jax.data.progress import tracked
from slm_jax.data.records import INDEX_FILE, RecordSource, write_records
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.parallel.hosts import on_first_host
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for, unbox
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.text.templates import CHATML, Template
from slm_jax.training.part_record import Parts, recorded
from slm_jax.training.parts import check_parts, open_parts
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stage_tokens import StageTokensConfig, tokens_of
from slm_jax.training.stages import StageConfig, StageContext

TARGETS, CHUNKS = "targets", "chunks"
SPLITS = ("train", "dev")


class LMTargetsConfig(StageConfig):
    """Asks the language model `part` the `tasks`, which describe clips in words, and keeps what it answers.

    `tasks`: one `DescribedTaskConfig`, or a mixture of them, of which each item of a part is asked once, in a wording
    that is drawn for it. `template`, `tokens`: those under which the model will hear. `sampling`: how it answers;
    `rows` items at a time. Prompts of more than `longest` ids have no answer. Answers are kept in steps of `chunk`
    items, so that a run that was stopped goes on there.
    """

    part: PartSource
    tokens: Config
    tasks: Config
    template: Template = CHATML
    sampling: SamplingConfig = SamplingConfig(max_new=64, temperature=0.0)
    rows: int = 16
    longest: int = 512
    chunk: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for part in self.mixture.parts:
            kind = type(part.example).__name__
            rule = "must be a DescribedTaskConfig: a language model hears no clips"
            require(isinstance(part.example, DescribedTaskConfig), f"example of {part.name!r}", kind, rule)
        for name in ("rows", "longest", "chunk"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.part.frozen, "part", self.part.path, "is frozen: nobody learns here")

    @property
    def mixture(self) -> MixtureConfig:
        """The tasks with their shares."""
        if isinstance(self.tasks, MixtureConfig):
            return self.tasks
        return MixtureConfig(parts=(PartConfig(name="task", weight=1.0, example=self.tasks),))

    @property
    def learnt(self) -> MixtureConfig:
        """The same tasks about the clips themselves, with what was answered here: for the stage that learns it."""
        parts = [(part, part.example) for part in self.mixture.parts if isinstance(part.example, DescribedTaskConfig)]
        own = [
            part.replace(example=GeneratedTaskConfig(task=example.task, stage=self.name, part=part.name))
            for part, example in parts
        ]
        return MixtureConfig(parts=tuple(own))

    @property
    def needs(self) -> tuple[str, ...]:
        spelt = (self.tokens.stage,) if isinstance(self.tokens, StageTokensConfig) else ()
        return tuple(dict.fromkeys((*(() if self.part.stage is None else (self.part.stage,)), *spelt)))

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts((self.part,), begun)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        parts = open_parts((self.part,), folder)
        on_first_host(lambda: self._write(folder, context, parts))
        return [TARGETS, *parts.artifacts]

    def _write(self, folder: StageFolder, context: StageContext, parts: Parts) -> None:
        """All tables; a process that was stopped left some of them, and chunks of another."""
        model, params = self._reader(parts)
        layout = PromptLayout(tokens_of(self.tokens, context).make(), self.template, lambda _: 0)  # type: ignore
        for split in SPLITS:
            for part in self.mixture.parts:
                table = folder.path / TARGETS / split / part.name
                if (table / INDEX_FILE).is_file():
                    continue
                asked = _Asked(self, part, context, split, layout)
                chunks = [self._chunk(start, asked, model, params, folder) for start in asked.starts]
                write_records(table, (row for chunk in chunks for row in rows_of(RecordSource(chunk))))
                for chunk in chunks:
                    remove_tree(chunk)
                context.say(f"stage {self.name}, {part.name}: {_told(RecordSource(table))} of {split}")

    def _chunk(self, start: int, asked: "_Asked", model: Any, params: Any, folder: StageFolder) -> AnyPath:
        """The answers to some items, which are there already where an earlier process got so far."""
        place = folder.path / CHUNKS / asked.split / asked.part.name / f"{start:08d}"
        if not (place / INDEX_FILE).is_file():
            write_records(place, asked.answered(range(start, min(start + self.chunk, len(asked))), model, params))
        return place

    def _reader(self, parts: Parts) -> tuple[Any, Any]:
        config = parts.configs[self.part.path]
        require(isinstance(config, DecoderConfig), "part", type(config).__name__, "must be a decoder")
        assert isinstance(config, DecoderConfig)  # for the type checker
        boxed = parts.frozen
        for name in self.part.path.split("/"):
            boxed = boxed[name]
        mesh = MeshConfig().make(jax.local_devices()[:1])
        return config.make(), {"params": load_part(unbox(boxed), shardings_for(boxed, mesh, "ddp"))}


class _Asked:
    """The items of a part in one split, and what they are asked."""

    def __init__(
        self, stage: LMTargetsConfig, part: PartConfig, context: StageContext, split: str, layout: PromptLayout
    ) -> None:
        assert isinstance(part.example, DescribedTaskConfig)  # for the type checker
        self.stage, self.part, self.split, self.layout, self.task = stage, part, split, layout, part.example
        self.source = of_corpus(context.source(split, part.example.reads), part)
        self.rate_hz, self.show = context.corpus.rate_hz, context.progress

    def __len__(self) -> int:
        return len(self.source)

    @property
    def starts(self) -> range:
        """The first item of every chunk."""
        return range(0, len(self), self.stage.chunk)

    def answered(self, places: range, model: Any, params: Any) -> Iterator[dict[str, Any]]:
        """A row for each of these items, in order; prompts of like lengths are answered together."""
        prompts = {place: ids for place in places if (ids := self._prompt(place)) is not None}
        order = sorted(prompts, key=lambda place: (len(prompts[place]), place))
        found: dict[int, str] = {}

        def groups() -> Iterator[dict[str, np.ndarray]]:
            for first in range(0, len(order), self.stage.rows):
                chosen = order[first : first + self.stage.rows]
                answers = self._answers(chosen, [prompts[place] for place in chosen], model, params)
                found.update(zip(chosen, answers, strict=True))
                yield {"valid": np.ones(len(chosen), bool)}

        for _ in tracked(groups(), len(order), f"{self.stage.name} {self.split}", self.show):
            pass
        for place in places:
            yield {"id": self.source[place]["id"], DRAW: self._draw(place), TARGET: found.get(place, "")}

    def _draw(self, place: int) -> int:
        """The seed of how an item is asked."""
        return int(np.random.default_rng([self.stage.seed, place]).integers(2**31))

    def _prompt(self, place: int) -> np.ndarray | None:
        item = self.source[place]
        said: Conversation | None = self.task.conversation(item, self.rate_hz, np.random.default_rng(self._draw(place)))
        if said is None:
            return None
        ids = self.layout.entries(said[:-1], answered=False).ids
        return ids if len(ids) <= self.stage.longest else None

    def _answers(self, places: Sequence[int], prompts: Sequence[np.ndarray], model: Any, params: Any) -> list[str]:
        """What the model says; the last rows of a short group are there twice, so that few programs are compiled."""
        filled = [*prompts, *[prompts[-1]] * (self.stage.rows - len(prompts))]
        longest = max(map(len, filled))
        ids = np.stack([np.pad(one, (0, longest - len(one))) for one in filled])
        mask = np.arange(longest) < np.array([len(one) for one in filled])[:, None]
        keys = jax.vmap(lambda place: jax.random.fold_in(jax.random.key(self.stage.seed), place))(
            np.array([*places, *[places[-1]] * (len(filled) - len(places))])
        )
        sampling = self.stage.sampling.replace(end=self.layout.end_id)
        made = generate(model, params, ids, mask, keys, sampling)
        rows = zip(np.asarray(made.ids), np.asarray(made.mask), strict=True)
        said = [ids[real] for ids, real in rows][: len(places)]
        return [self.layout.tokens.decode(row[row != self.layout.end_id].tolist()).strip() for row in said]


def with_targets(source: Any, task: SpeechTaskConfig, split: str, context: StageContext) -> Any:
    """The items of a task with the answers that an earlier stage wrote, where it wants these.

    Raises `UserError` where that stage asked something else.
    """
    if not isinstance(task, GeneratedTaskConfig):
        return source
    folder = context.finished(task.stage)
    wrote = LMTargetsConfig.of(folder).learnt.parts
    asked = {part.name: part.example for part in wrote}
    known = task.part in asked
    require(known, f"part of {task.stage!r}", task.part, f"it has {', '.join(asked)}")
    own = asked[task.part]
    assert isinstance(own, GeneratedTaskConfig)  # for the type checker
    require(own.task == task.task, f"task of {task.part!r}", task.task, f"stage {task.stage!r} asked {own.task}")
    return Joined(source, RecordSource(folder.path / TARGETS / split / task.part))


def check_backbone(tasks: MixtureConfig, parts: Parts, stage: str, context: StageContext) -> None:
    """Raise `UserError` where targets were written by another language model than the one that is to learn them."""
    own = [(path, found) for path, found in parts.hashes.items() if path.split("/", 1)[-1] == "lm"]
    for part in tasks.parts:
        task = part.example
        if not (isinstance(task, GeneratedTaskConfig) and task.of_backbone):
            continue
        (writer,) = (recorded(context.finished(task.stage)) or {}).values()
        for path, found in own:
            if found != writer["hash"]:
                raise UserError(
                    f"stage {stage!r}: the targets of {task.stage!r} were written by the language model "
                    f"{writer['hash']}, and part {path!r} is {found}: a model is to learn its own answers. Give both "
                    "the same source, or say of_backbone=False"
                )


def rows_of(table: RecordSource) -> Iterator[dict[str, Any]]:
    """All rows of a table, in order."""
    return (table[place] for place in range(len(table)))


def _told(table: RecordSource) -> str:
    there = sum(bool(row[TARGET]) for row in rows_of(table))
    return f"{there} answers to {len(table)} items"
