"""The tokens of what is heard in items, turn by turn, kept in a table: a question is read as when it is asked alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.contracts import Tokenizer
from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.one_stream import StreamOf
from slm_jax.data.examples.spoken_item import COUNTS
from slm_jax.data.joined import Joined
from slm_jax.data.passes import float_samples
from slm_jax.data.progress import counted
from slm_jax.data.records import INDEX_FILE, RecordSource
from slm_jax.data.shares import share_of, write_shared
from slm_jax.parallel.hosts import on_first_host
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import token_stage

TURNS = "turns"


class SpeechStreamConfig(Config):
    """A range of the id space that holds the tokens of stage `stage`, its only codebook.

    `once`: an id that is said again is left out. `ids`: rows of the table, None: as many as the stage makes. Streams
    are columns of an item under their names.
    """

    stage: str
    name: str = "units"
    once: bool = True
    ids: int | None = None

    def size(self, spec: TokenSpec) -> int:
        """Ids of the range; raises `UserError` where it has less room than the stage makes."""
        size = spec.units if self.ids is None else self.ids
        require(size >= spec.units, f"ids of stream {self.name!r}", size, f"stage {self.stage!r} makes {spec.units}")
        return size

    def of(self, spec: TokenSpec) -> StreamOf:
        """Where its ids come from."""
        return StreamOf(self.name, self.name, spec.frames_per_second, self.once)


def heard_items(
    streams: tuple[SpeechStreamConfig, ...],
    kinds: tuple[str, ...] | None,
    folder: AnyPath,
    context: StageContext,
    split: str,
) -> Joined:
    """The items of a split with the ids of each stream.

    Those that the corpus gives unasked have them from the token stage, whole; of items of other kinds every heard turn
    is tokenized apart, once, into tables below `folder`.
    """
    source = context.source(split, kinds)
    if kinds is None or kinds == context.corpus.default_kinds():
        return Joined(source, *(_Of(context, one, split) for one in streams))
    return Joined(source, *(_turns(one, kinds, source, folder, context, split) for one in streams))


class _Of:
    """The ids of a token stage under the name of a stream."""

    def __init__(self, context: StageContext, stream: SpeechStreamConfig, split: str) -> None:
        stage = token_stage(context, stream.stage)
        self._rows = RecordSource(stage.records(context.finished(stream.stage), split))
        self._column, self._name = stage.spec(context).columns[0], stream.name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = self._rows[place]
        return {"id": row["id"], self._name: row[self._column]}


def _turns(
    stream: SpeechStreamConfig,
    kinds: tuple[str, ...],
    source: Any,
    folder: AnyPath,
    context: StageContext,
    split: str,
) -> RecordSource:
    """The table of the turns of `source`, made when it is not there; hosts share the work."""
    table = folder / TURNS / stream.name / "_".join(kinds) / split
    if not on_first_host(lambda: (table / INDEX_FILE).is_file()):
        write_shared(table, _rows(stream, source, context, f"{stream.name} of {split}"), len(source))
    return RecordSource(table)


def _rows(
    stream: SpeechStreamConfig, source: Any, context: StageContext, name: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    tokenizer, own = token_stage(context, stream.stage).tokenizer(context), share_of(len(source))
    with counted(len(own), name, "ex", context.progress) as bar:
        for place in own:
            item = source[place]
            ids = [_ids(tokenizer, clip) for clip in heard_clips(item, context.corpus.rate_hz)]
            counts = np.array([len(one) for one in ids], np.int32)
            every = np.concatenate([np.zeros(0, np.int32), *ids])
            yield place, {"id": item["id"], stream.name: every, COUNTS.format(stream.name): counts}
            bar.update(1)


def _ids(tokenizer: Tokenizer, clip: np.ndarray) -> np.ndarray:
    """The ids of a clip, none of one that is shorter than a frame."""
    if int(tokenizer.frame_count(len(clip))) <= 0:
        return np.zeros(0, np.int32)
    (made,) = tokenizer.encode_all([clip])
    return np.asarray(made[tokenizer.spec.columns[0]] if isinstance(made, dict) else made, np.int32)


def heard_clips(item: dict[str, Any], rate_hz: int) -> list[np.ndarray]:
    """The samples of every turn that is heard, float32."""
    samples, found = float_samples(item["samples"]), []
    for turn in item["messages"]:
        if turn.start_s is not None and turn.end_s is not None:
            channel = samples if samples.ndim == 1 else samples[:, turn.channel]
            found.append(channel[round(turn.start_s * rate_hz) : round(turn.end_s * rate_hz)])
    return found
