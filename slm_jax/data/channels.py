"""Corpora of several channels read one channel at a time."""

from typing import Any

import numpy as np

from slm_jax.core.errors import require
from slm_jax.data.lines import LineConfig
from slm_jax.data.passes import float_samples


class Channel:
    """The items of a source, of which only one channel is heard.

    `line`: through which it is heard; the sound of all other channels is what its echo gives back. An item gets the
    same line whenever it is read. Raises `UserError` for an item that has no such channel.
    """

    def __init__(self, source: Any, channel: int, line: LineConfig | None = None, rate_hz: int = 16_000) -> None:
        self.source, self.channel = source, channel
        self._change = None if line is None else line.make(rate_hz)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.source[index]
        samples = item["samples"] if item["samples"].ndim == 2 else item["samples"][:, None]
        rule = f"item {item['id']!r} has {samples.shape[1]}"
        require(self.channel < samples.shape[1], "channel", self.channel, rule)
        return item | {"samples": self._heard(samples, index)}

    def _heard(self, samples: np.ndarray, index: int) -> np.ndarray:
        if self._change is None:
            return samples[:, self.channel]
        sound = float_samples(samples)
        others = np.delete(sound, self.channel, axis=1).sum(axis=1)
        return self._change(sound[:, self.channel], others, np.random.default_rng((index, self.channel)))


class ChannelsApart:
    """Every channel of every item as an item of its own, all first channels before all second ones.

    A channel on which nobody is heard is left out: the first one with a voice stands in its place.
    """

    def __init__(self, source: Any, channels: int) -> None:
        self._channels = [Channel(source, channel) for channel in range(channels)]
        self._count = len(source)

    def __len__(self) -> int:
        return self._count * len(self._channels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        channel, place = divmod(int(index), self._count)
        item = self._channels[channel][place]
        voices = sorted({turn.channel for turn in item.get("messages", ()) if turn.is_heard})
        return item if not voices or channel in voices else self._channels[voices[0]][place]
