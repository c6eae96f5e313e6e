"""Held-out items as conversations, and what a system replies to them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from slm_jax.audio.files import resample
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Conversation, Message, Part, Speech, Text
from slm_jax.data.corpus import kinds_of
from slm_jax.evaluation.section import Lacking
from slm_jax.training.held_out import speech_of, waveform
from slm_jax.training.kept import kept_kinds
from slm_jax.training.stages import StageContext

ROWS = 8
"""Conversations that are answered together."""
Item = dict[str, Any]


def kinds_there(context: StageContext) -> tuple[str, ...]:
    """The kinds of items in the corpus, or of those that the run folder keeps."""
    return kept_kinds(context.run) if context.kept else kinds_of(context.corpus, context.data_dir)


def require_there(context: StageContext, kinds: Sequence[str]) -> None:
    """Raise `Lacking` unless items of all these kinds are there."""
    known = kinds_there(context)
    missing = [kind for kind in kinds if known and kind not in known]
    if missing:
        where = "the run folder keeps (`keeps` says what)" if context.kept else "the corpus has"
        raise Lacking(f"items of kind {', '.join(missing)} are not there: {where} {', '.join(known)}")


def items_of(
    context: StageContext, kinds: tuple[str, ...] | None, count: int, fits: Callable[[Item], bool]
) -> list[Item]:
    """The first `count` items of the test split that fit; `kinds` None: those that the corpus gives unasked."""
    require_there(context, kinds or ())
    source = speech_of(context, "test", kinds)
    return [item for item, _ in zip(_fitting(source, fits), range(count), strict=False)]


def heard(item: Item, context: StageContext, rate_hz: int, *written: str) -> Conversation:
    """The whole item as the user's speech at `rate_hz` (Hz), and after it what is written, if anything."""
    words = tuple(Text(text) for text in written if text)
    return (Message("user", (Speech(waveform(item, context, rate_hz), rate_hz), *words)),)


def at_rate(one: Conversation, rate_hz: int) -> Conversation:
    """The conversation with all its clips at `rate_hz` (Hz)."""
    return tuple(Message(message.role, tuple(_resampled(part, rate_hz) for part in message.parts)) for message in one)


def replies_to(system: Any, conversations: Sequence[Conversation], seed: int = 0, decoding: Any = None) -> list[Reply]:
    """A reply to each, with a key for each place: the same place draws alike whatever is asked there."""
    keys = jax.random.split(jax.random.key(seed), len(conversations))
    found: list[Reply] = []
    for start in range(0, len(conversations), ROWS):
        rows = slice(start, start + ROWS)
        found += system.respond(conversations[rows], decoding, keys[rows])
    return found


def text_of(reply: Reply) -> str:
    """All that a reply writes."""
    return " ".join(message.text for message in reply.messages if message.text)


def require_kinds_of_parts(system: Any, reads: Sequence[str] = (), writes: Sequence[str] = ()) -> None:
    """Raise `Lacking` unless the system reads and writes these, of `speech` and `text`."""
    for verb, wanted, does in (("reads", reads, system.reads), ("writes", writes, system.writes)):
        missing = [kind for kind in wanted if kind not in does]
        if missing:
            raise Lacking(f"the system {verb} no {' and no '.join(missing)}")


def turned(values: Sequence[Any]) -> list[Any]:
    """Every value in the place of the one before it: nothing stays where it was (two at least)."""
    return [*values[1:], *values[:1]]


def _fitting(source: Any, fits: Callable[[Item], bool]) -> Iterator[Item]:
    return (item for item in map(source.__getitem__, range(len(source))) if fits(item))


def _resampled(part: Part, rate_hz: int) -> Part:
    if isinstance(part, Text) or part.rate_hz == rate_hz:
        return part
    samples = resample(part.samples, part.rate_hz, rate_hz)
    return dataclasses.replace(part, samples=samples, rate_hz=rate_hz)
