"""Text in a stream of its own beside the speech: what there is no text for is padded.

The survey's first three layouts. All begin each frame with one entry of text; text that is left when the speech is over
follows it alone.
"""

from typing import Literal

import numpy as np
from jaxtyping import Int

from slm_jax.core.errors import require
from slm_jax.layouts.layout import NOTHING, PAD, WORD, Layout, Slots
from slm_jax.layouts.said import Said


class Beside(Layout):
    """`ahead`: frames by which text comes before the speech that it belongs to (speaking what is written); below 0 it
    comes after it (writing what is heard)."""

    ahead: int = 0

    def slots(self, said: Said, frames: int, rng: np.random.Generator) -> Slots:
        stream = self.stream(said, frames)
        place = np.arange(min(0, self.ahead), max(len(stream), frames + self.ahead))
        text, frame = np.full(len(place), NOTHING), place - self.ahead
        inside = (place >= 0) & (place < frames)
        text[inside] = PAD
        written = (place >= 0) & (place < len(stream))
        text[written] = stream[place[written]]
        return Slots(text, np.where((frame >= 0) & (frame < frames), frame, -1))

    def longest(self, steps: int, frames: int, text: int) -> int:
        return steps + abs(self.ahead) + self.beyond(frames, text)

    def beyond(self, frames: int, text: int) -> int:
        """The most entries of the stream that come behind so many frames."""
        return max(0, text - frames)

    def stream(self, said: Said, frames: int) -> Int[np.ndarray, "_"]:
        """Text and marks, one for each frame, as if nothing were ahead; longer where the text is."""
        raise TypeError(f"{type(self).__name__} has no stream")


class PaddingAfter(Beside):
    """The whole text from the first frame on, then padding (Mini-Omni, Xie and Wu 2024)."""

    def stream(self, said: Said, frames: int) -> Int[np.ndarray, "_"]:
        return said.ids.astype(int)


class FixedPadding(Beside):
    """`pads` frames of padding behind every text id, whatever is heard meanwhile."""

    pads: int = 3

    def __post_init__(self) -> None:
        require(self.pads >= 0, "pads", self.pads, "0 or more")

    def beyond(self, frames: int, text: int) -> int:
        return max(0, text * (1 + self.pads) - frames)

    def stream(self, said: Said, frames: int) -> Int[np.ndarray, "_"]:
        found = np.full(len(said.ids) * (1 + self.pads), PAD)
        found[:: 1 + self.pads] = said.ids
        return found[: max(0, len(found) - self.pads)]


class TimeAligned(Beside):
    """Every word where it is heard, WORD in the frame before it where that holds no text (Moshi, Défossez et al. 2024).

    A word of more ids than frames runs into the next: "shift" lets that begin later, "drop" leaves out what is left of
    the first (both as its authors' fine-tuning code has them). A word that begins in the first frame has WORD there and
    its ids from the second on, as the paper says.
    """

    overlap: Literal["shift", "drop"] = "shift"

    def beyond(self, frames: int, text: int) -> int:
        return 0 if self.overlap == "drop" else text + 1  # the mark in the first frame

    def stream(self, said: Said, frames: int) -> Int[np.ndarray, "_"]:
        found: list[int] = []
        for word, (first, last) in enumerate(said.place):
            start = int(said.frames[word, 0])
            if self.overlap == "drop":
                del found[max(start, 0) :]
            found += [PAD] * (start - len(found))
            if not found:
                found.append(WORD)
            elif found[-1] == PAD:
                found[-1] = WORD
            found += said.ids[first:last].tolist()
        return np.array(found[:frames] if self.overlap == "drop" else found, int)
