"""The words of an item in any order, to be said again: text from which nothing but reading can be learnt."""

import numpy as np

from slm_jax.core.messages import Conversation, Message, Text
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig


class RepeatedWordsConfig(SpeechTaskConfig):
    """`ask`, then the words of an item's text in an order that is drawn each time; the answer is these words.

    Nothing is heard. An encoder-decoder learns from it to find its place in what it reads, which a few hundred texts
    that can be known by heart do not teach. Of a text of more than `most` words a stretch of so many is taken.
    """

    ask: str = "Repeat:"
    most: int = 12

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        words = (item.get("text") or "").split()
        if not words:
            return None
        first = int(rng.integers(max(0, len(words) - self.most) + 1))
        said = " ".join(str(word) for word in rng.permutation(words[first : first + self.most]))
        return Message("user", (Text(f"{self.ask} {said}"),)), Message("assistant", (Text(said),))

    def words(self, item: Item) -> tuple[str, ...]:
        return ()
