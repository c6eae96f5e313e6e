"""What the systems on Whisper share: clips are heard, and prefixes of any length go on under their rules."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from slm_jax.assemblies.whisper import Whisper, WhisperConfig
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.prompts import round_up
from slm_jax.generation.rules import Rules, rules_of
from slm_jax.generation.sampling import SamplingConfig

RATE_HZ = 16_000


class Said(NamedTuple):
    """What may follow a prefix, the likeliest first: ids with their ends, and the scores of the search."""

    ids: tuple[np.ndarray, ...]
    scores: np.ndarray


class WhisperReader:
    """A Whisper model and its parameters. `end` closes what is said; ids `never` and `not_first` are kept back.

    `silence_s`: seconds of silence that a trimming encoder hears behind a clip.
    """

    def __init__(
        self,
        config: WhisperConfig,
        params: Any,
        end: int,
        never: Sequence[int] = (),
        not_first: Sequence[int] = (),
        silence_s: float = 0.0,
    ) -> None:
        self.silence = round(silence_s * RATE_HZ)
        self.model, self.params, self.rules = config.make(), params, _rules(config, end, never, not_first)

    def room(self, prefix: Sequence[int], max_new: int | None) -> int:
        """Tokens that may follow a prefix: `max_new`, which must fit, or as many as there are positions for."""
        room = (self.model.config.decoder.max_positions or 0) - len(prefix)
        require((max_new or 1) <= room, "max_new", max_new, f"the decoder has room for {room}")
        return max_new or room

    def heard(self, clips: Sequence[np.ndarray], rows: int) -> Frames:
        """What the encoder makes of some clips and of the last one again: few shapes, so few programs are compiled."""
        samples, mask = self.padded(clips, rows)
        return _encoded(self.model, self.params, samples, mask)

    def padded(self, clips: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The clips side by side, up to `rows` of them, and which samples are real."""
        encoder = self.model.config.encoder
        behind = self.silence if encoder.trim else encoder.window
        heard = np.array([min(len(clip) + behind, encoder.window) for clip in clips])
        length = min(round_up(int(heard.max()), RATE_HZ), encoder.window)
        samples = np.stack([np.pad(clip, (0, length - len(clip))) for clip in clips])
        mask = np.arange(length) < heard[:, None]
        count = min(_rounded(len(clips)), rows)
        return filled(samples, count), filled(mask, count)

    def said(self, context: Frames, prefixes: Sequence[Sequence[int]], max_new: int, beam: BeamConfig) -> list[Said]:
        """What follows each prefix, beside the first rows of `context`; a row's words do not depend on the others'."""
        length = max(map(len, prefixes))
        ids = np.array([[*one, *[0] * (length - len(one))] for one in prefixes], np.int32)
        mask = np.arange(length) < np.array([len(one) for one in prefixes])[:, None]
        made = beam_search(
            self.model.config.decoder.make(),
            self.params["decoder"],
            filled(ids, len(context.mask)),
            filled(mask, len(context.mask)),
            SamplingConfig(max_new=max_new, temperature=0.0),
            beam,
            rules=self.rules,
            context=context,
        )
        fields = map(np.asarray, (made.ids, made.mask, made.scores))
        return [_said(*row) for row in zip(*fields, strict=True)][: len(prefixes)]


def _rounded(rows: int) -> int:
    """The next power of two, or three quarters of it: few programs are compiled, and at most a third is for nothing."""
    power = 1 << (rows - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= rows else power


def filled(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, and the last one again until there are `count`."""
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


def _said(ids: np.ndarray, mask: np.ndarray, scores: np.ndarray) -> Said:
    found = tuple(one[real] for one, real in zip(ids, mask, strict=True) if real.any())
    return Said(found, scores[: len(found)])


def _rules(config: WhisperConfig, end: int, never: Sequence[int], not_first: Sequence[int]) -> Rules:
    """`not_first` is kept back for the first token behind a prefix, however long that is."""
    vocabulary = config.decoder.vocabulary
    always = rules_of(SamplingConfig(end=end, forbidden=tuple(never)), (vocabulary,))
    legal = np.ones((1, 1, vocabulary), bool) if always.legal is None else np.asarray(always.legal)
    first = legal.copy()
    first[..., list(not_first)] = False
    return Rules(np.concatenate([first, legal]), always.ends, of_drawn=True)


@partial(jax.jit, static_argnums=0)
def _encoded(model: Whisper, params: Any, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Frames:
    return model.apply({"params": params}, samples, mask, method="encode")
