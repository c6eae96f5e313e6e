"""Whisper for `parity`: inputs `samples` and `mask` [B, N], `ids` and `ids_mask` [B, S]; encoder and decoder."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from slm_jax.assemblies.whisper import Whisper, WhisperConfig
from slm_jax.workbench.comparable import Case, Comparable, Found, noise


def _cases(config: WhisperConfig, rng: np.random.Generator, tiny: bool) -> Iterable[Case]:
    """A clip as long as a window, one of a third of it, one of a frame; ids padded on either side."""
    window, steps = config.encoder.window, min(17, config.decoder.max_positions or 17)
    lengths = np.array([steps, steps // 2 + 1, 2])[:, None]
    ids, index = rng.integers(0, config.decoder.vocabulary, (3, steps)), np.arange(steps)
    right, left = index < lengths, index >= steps - lengths
    heard = {**noise(rng, [window, window // 3, config.encoder.hop]), "ids": ids}
    first = {name: value[:1] for name, value in heard.items()}
    yield Case("plain", {**first, "ids_mask": np.ones((1, steps), bool)})
    yield Case("right-padded", {**heard, "ids_mask": right})
    yield Case("left-padded", {**heard, "ids_mask": left})
    yield Case("batch against utterance", {**heard, "ids_mask": right}, alone=True)


def _collect(model: Whisper, params: Any, inputs: Mapping[str, jax.Array]) -> Found:
    def pieces(model: Whisper, samples: jax.Array, mask: jax.Array, ids: jax.Array, ids_mask: jax.Array) -> tuple:
        heard, decoder = model.encoder(samples, mask, collect=True), model.decoder
        features = decoder.hidden(ids, mask=ids_mask, context=heard.frames)
        return heard, decoder.hidden_states(ids, mask=ids_mask, context=heard.frames), features, decoder.head(features)

    heard, states, features, logits = model.apply({"params": params}, **inputs, method=pieces)
    encoder = {"features": heard.features, "positions": heard.hidden[0]}
    encoder |= {f"encoder_layer_{i}": heard.hidden[i] for i in range(1, len(heard.hidden))}
    encoder["encoder_norm"] = heard.values
    decoder = {"embeddings": states[0]} | {f"decoder_layer_{i}": states[i] for i in range(1, len(states))}
    decoder |= {"decoder_norm": features, "logits": logits}
    found = {name: (values, heard.mask) for name, values in encoder.items()}
    return found | {name: (values, inputs["ids_mask"]) for name, values in decoder.items()}


WHISPER = Comparable(cases=_cases, collect=_collect, moved="cross_attention/out/bias")
