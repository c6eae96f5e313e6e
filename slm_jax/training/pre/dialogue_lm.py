"""p(text, own speech | the other's speech): a model that hears and speaks at once (Moshi, Défossez et al. 2024)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.dialogue_rows import DialogueRowsConfig, SideConfig
from slm_jax.data.joined import Joined, Subset
from slm_jax.data.mixture import MixtureConfig
from slm_jax.data.pipeline import make_batches
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.codes import nats_of_text_and_codes
from slm_jax.layouts.beside import Beside, TimeAligned
from slm_jax.layouts.layout import MARKS
from slm_jax.schemes.table import Scheme
from slm_jax.text.tokenizers import ByteTokenizerConfig, spelling_hash
from slm_jax.training.gradient_stage import Learner, Outline, Plan, host_share, trained
from slm_jax.training.loop import Evaluate
from slm_jax.training.pre.streams_stage import StreamsStageConfig, names_of, require_order
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.state import TrainState
from slm_jax.training.token_stage import TOKENS, planned_spec, token_stage


class DialogueLMConfig(StreamsStageConfig):
    """Trains `model` on the codes of both channels of a corpus and on what the own side says.

    `tasks`: a mixture whose parts have a `SideConfig` each as `example`: text alone, one side, both. `scheme`: of the
    own books and then the other's, as many; `layout`: of the text beside the own ones. `start_from`: an earlier stage
    of this kind with the same model and tokens. Rows are stretches of `frames` frames with up to `text` text ids;
    `padding`: how much an entry without text counts. `text_ids`: how many ids the text has, where `text_tokens` need
    not be there yet. Streams that the model does not write are read alone.
    Figures on the dev split, by part: nats per text id, per mark and per code that is written.
    """

    scheme: Scheme
    tasks: MixtureConfig
    layout: Beside = TimeAligned()
    text_tokens: Config = ByteTokenizerConfig()
    text_ids: int | None = None
    frames: int = 150
    text: int = 64
    padding: float = 0.5
    start_from: str | None = None

    def __post_init__(self) -> None:
        require_order(self.scheme, self.model)
        for part in self.tasks.parts:
            kind = type(part.example).__name__
            require(isinstance(part.example, SideConfig), f"example of part {part.name!r}", kind, "must be a side")

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.tokens, *(() if self.start_from is None else (self.start_from,)))

    @property
    def written(self) -> int:
        """How many of the first streams the model writes."""
        return getattr(self.model, "count", len(self.model.streams))

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        spec = token_stage(context, self.tokens).spec(context)
        rows = [self.rows(spec, side) for side in self.sides]
        sources = [self._source(context, "train", side) for side in self.sides]
        weights = [part.weight for part in self.tasks.parts]
        return Plan(
            *self._learner(spec, self._size(rows[0])),
            batches=make_batches(
                list(zip(sources, weights, strict=True)),
                [one.make() for one in rows],
                self.batches,
                **host_share(self.train.mesh),
            ),
            evaluate=self._evaluation(rows, context),
            start_from=None if self.start_from is None else trained(context.finished(self.start_from))[1],
            speech_s=lambda batch: float((batch["ids"][..., 1] >= 0).sum()) / spec.frames_per_second,
            meta={
                TOKENS: spec.to_json(),
                "text_ids": rows[0].tokenizer.size,
                "spelling": spelling_hash(rows[0].tokenizer),
            },
        )

    def outline(self, run: RunConfig) -> Outline:
        spec, batch = planned_spec(run, self.tokens), self.batches.batch
        rows = self.rows(spec, self.sides[0])
        entries = (batch, rows.steps, 1 + len(spec.columns))
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            **{name: (entries, kind) for name, kind in (("ids", jnp.int32), ("target_weight", jnp.float32))},
            "hidden": (entries, bool),
            "mask": (entries[:2], bool),
            "example": (entries[:1], jnp.int32),
        }
        size = rows.size if self.text_ids is None else self.text_ids + MARKS
        return Outline(
            *self._learner(spec, size),
            batch={name: jax.ShapeDtypeStruct(*one) for name, one in shapes.items()},
            tokens=batch * rows.steps,
            speech_s=batch * self.frames / spec.frames_per_second,
        )

    @property
    def sides(self) -> list[SideConfig]:
        """What each part of the mixture is given."""
        return [part.example for part in self.tasks.parts if isinstance(part.example, SideConfig)]

    def rows(self, spec: TokenSpec, side: SideConfig) -> DialogueRowsConfig:
        """How a part's items become rows."""
        books = len(spec.columns) // 2
        channels = (spec.columns[:books], spec.columns[books:])
        return DialogueRowsConfig(
            columns=(*channels[side.own], *channels[1 - side.own]),
            scheme=self.scheme,
            layout=self.layout,
            tokens=self.text_tokens,
            frames=self.frames,
            frames_per_second=spec.frames_per_second,
            text=self.text,
            padding=self.padding,
            side=side,
        )

    def _size(self, rows: DialogueRowsConfig) -> int:
        """Ids of text and marks, which must be those that the config states, if it does."""
        stated = self.text_ids is None or self.text_ids + MARKS == rows.size
        require(stated, f"{self.name}.text_ids", self.text_ids, f"text_tokens have {rows.tokenizer.size}")
        return rows.size

    def _learner(self, spec: TokenSpec, size: int) -> Learner:
        given, wanted = self.model.streams, (size, *spec.sizes)
        rule = f"{size} ids of text and marks, and stage {self.tokens!r} makes books of {spec.sizes}"
        require(given == wanted, f"{self.name}.model.streams", given, rule)
        unread = self.weights is None or not any(self.weights[self.written :])
        require(unread, f"{self.name}.weights", self.weights, f"only {self.written} streams are written")
        weights = self.weights or tuple(float(k < self.written) for k in range(len(given)))
        names = tuple(f"own_{name}" for name in names_of(spec)[: len(spec.sizes) // 2])
        others = tuple(f"other_{name}" for name in names_of(spec)[: len(spec.sizes) // 2])
        return self.replace(weights=weights).learner(("text", *names, *others))

    def _source(self, context: StageContext, split: str, side: SideConfig) -> Any:
        """The items of a split that a part learns from, with their codes."""
        tokens = token_stage(context, self.tokens)
        source, records = tokens.items(context, split), tokens.records(context.finished(self.tokens), split)
        places = [i for i, kind in enumerate(source.kinds) if side.kinds is None or kind in side.kinds]
        require(split != "train" or bool(places), "kinds", side.kinds, f"the corpus has {sorted(set(source.kinds))}")
        return Subset(Joined(source, RecordSource(records)), places)

    def _evaluation(self, rows: list[DialogueRowsConfig], context: StageContext) -> Evaluate | None:
        dev = [self._source(context, "dev", side) for side in self.sides]
        if not any(map(len, dev)):
            context.say_unmeasured(self.name)
            return None
        model, names = self.model.make(), [part.name for part in self.tasks.parts]
        made = [
            [one.opening(source[i], np.random.default_rng(i)) for i in range(len(source))]
            for one, source in zip(rows, dev, strict=True)
        ]
        steps, size = rows[0].steps, rows[0].tokenizer.size

        def evaluate(state: TrainState, frozen: object) -> dict[str, float]:
            found: dict[str, float] = {}
            for name, part in zip(names, made, strict=True):
                params = state.served["params"]
                nats = nats_of_text_and_codes(model, params, part, steps, size, self.written) if part else {}
                found |= {f"{name}_{key}": value for key, value in nats.items()}
            return found

        return evaluate
