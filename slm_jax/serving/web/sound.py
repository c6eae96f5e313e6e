"""Sound as the socket carries it: base64 of 16-bit little-endian samples, one channel, 24 kHz."""

import base64
import binascii
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.audio.files import to_float, to_int16
from slm_jax.serving.web.events import Refused

RATE_HZ = 24_000
SAMPLE = np.dtype("<i2")


def samples_of(audio: Any, param: str = "audio") -> Float[np.ndarray, "N"]:
    """Samples in [-1, 1) of the base64 text of an event; raises `Refused` for what is none."""
    if not isinstance(audio, str):
        raise Refused("invalid_audio", f"{param} is no text: it must be base64 of 16-bit samples at 24 kHz", param)
    try:
        raw = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("invalid_audio", f"{param} is no base64: {error}", param) from None
    if len(raw) % SAMPLE.itemsize:
        raise Refused("invalid_audio", f"{param} has {len(raw)} bytes: 16-bit samples have two each", param)
    return to_float(np.frombuffer(raw, SAMPLE).astype(np.int16))


def base64_of(samples: Float[np.ndarray, "N"]) -> str:
    """The inverse; clipped to [-1, 1]."""
    return base64.b64encode(to_int16(samples).astype(SAMPLE).tobytes()).decode("ascii")
