"""Runs of systems that need no training: one reads texts and hums, one hears and answers."""

import dataclasses
from typing import Any

import numpy as np

from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.training.stages import RunConfig


@dataclasses.dataclass
class Humming:
    """Says a letter in a hundredth of a second, louder or softer as it draws; nothing to a text without letters."""

    reads: frozenset = frozenset({"text"})
    writes: frozenset = frozenset({"speech"})
    rate_hz: int = 8_000
    decoding: Any = None

    def respond(self, conversations, decoding, key):
        import jax

        drawn = [float(jax.random.uniform(one)) for one in key]
        return [self.reply(one[0].text, loud) for one, loud in zip(conversations, drawn, strict=True)]

    def reply(self, text, loud):
        tones = [np.sin(0.1 * (ord(letter) % 32) * np.arange(80)) for letter in text if letter.isalpha()]
        if not tones:
            return Reply((), {})
        return Reply((Message("assistant", (Speech(0.5 * loud * np.concatenate(tones), self.rate_hz),)),), {})


class HummingRun(RunConfig):
    def load(self, context):
        return Humming()


@dataclasses.dataclass
class Answering:
    """Says how many clips it heard, and what was written beside them."""

    reads: frozenset = frozenset({"speech", "text"})
    writes: frozenset = frozenset({"text"})
    rate_hz: int = 8_000
    decoding: Any = None

    def open(self, batch):
        """That it has one says that it streams; nobody opens it here."""

    def respond(self, conversations, decoding, key):
        return [self.reply(one[0]) for one in conversations]

    def reply(self, message):
        assert all(clip.rate_hz == self.rate_hz for clip in message.speech)
        return Reply((Message("assistant", (Text(f"{len(message.speech)} {message.text}".strip()),)),), {})


class AnsweringRun(RunConfig):
    def load(self, context):
        return Answering()
