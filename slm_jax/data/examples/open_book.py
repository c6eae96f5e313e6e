"""Spoken questions of the world beside written notes: the answer stands there, and which it is must be heard."""

import numpy as np

from slm_jax.core.messages import Conversation, Message, Text
from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import alike, reply
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, Item


class OpenBookTaskConfig(AnsweredTaskConfig):
    """The question of an item, and notes: the sentence that answers it among `others` of its form, in any order.

    What a held-out question asks for stands nowhere else, so that a closed book could only be guessed at. `seed`: that
    of the world. `others` and their order follow from the question, so that everybody is asked alike.
    """

    kinds: tuple[str, ...] | None = ("question_answer",)
    others: int = 3
    seed: int = 0
    heading: str = "Notes:"
    ask: str = "Answer the question."

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = super().conversation(item, rate_hz, rng)
        question, world = item["question"], make_world(self.seed)
        known = reply(world, question)
        if said is None or known is None:
            return None
        own = np.random.default_rng([self.seed, *question.encode()])
        notes = list(dict.fromkeys([known[0], *alike(world, question, self.others, own)]))
        written = " ".join([self.heading, *(notes[i] for i in own.permutation(len(notes))), self.ask])
        return (*said[:-2], Message("user", (*said[-2].parts, Text(written))), said[-1])
