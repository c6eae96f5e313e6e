"""What the world knows of a sentence, as tasks whose answer is one label: rate, loudness, voice, last word, intent."""

from typing import Any

import numpy as np

from slm_jax.data.corpora.world_grammar import topic
from slm_jax.data.corpora.world_instructions import instructions
from slm_jax.data.examples.speech_tasks import AskedTaskConfig, Item


class WorldTaskConfig(AskedTaskConfig):
    """A recording of one turn. In `answers` the labels of `labels_of` stand beside the fields of the item."""

    def said(self, item: Item, rng: np.random.Generator) -> tuple[str, str] | None:
        return super().said({**item, **labels_of(item)}, rng)


def labels_of(item: Item) -> dict[str, Any]:
    """By name, those that are known of an item of one turn.

    Labels of the instructions that fit it (`world_instructions.TASKS`: `rate`, `energy`, `register`, `voice`,
    `last_word`, `word_count` ...), and `intent`: what the sentence is about.
    """
    turns = item["turns"]
    if len(turns) != 1:
        return {}
    found = instructions(item, np.random.default_rng(0))
    labels = {task: reply.answer or "" for task, _, reply in found}
    about = topic(turns[0]["text"])
    return labels if about is None else {**labels, "intent": about}
