"""A prosodic speech LM on drawn weights: all its parts are real, and nobody trained them."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.assemblies.prosodic_tokenizer import ProsodicTokenizer, ProsodyConfig
from slm_jax.audio.pitch import PitchConfig
from slm_jax.data.examples.run_rows import RunRowsConfig
from slm_jax.sequence_models.presets import pgslm, pgslm_continuous
from slm_jax.serving.prosodic_speech_lm import ProsodicSpeechLM
from slm_jax.serving.unit_speech_lm import UnitDecoding
from tests.contracts.checks import random_params
from tests.serving.drawn import drawn_unit_speech_lm

SMALL = {"layers": 1, "width": 16, "heads": 2, "hidden": 32, "embed_scale": 1.0}
UNITS, CLASSES = 8, 5


def drawn_prosodic_speech_lm(reals: bool = False, **changes) -> ProsodicSpeechLM:
    """MFCC units with durations and pitch, one layer of language model over them, a narrow vocoder."""
    base = drawn_unit_speech_lm(units=UNITS)
    continuous = ("duration", "log_f0") if reals else ()
    prosody = ProsodyConfig(pitch=PitchConfig(hop_s=0.01), longest=6, bins=CLASSES - 1, continuous=continuous)
    tokenizer = ProsodicTokenizer(base.tokenizer, prosody, np.array([-0.2, 0.0, 0.2]), {})
    config = pgslm_continuous(UNITS, **SMALL) if reals else pgslm(UNITS, 7, CLASSES, **SMALL)
    lm, spec = config.make(), tokenizer.spec
    parts = {
        "tokenizer": tokenizer,
        "rows": RunRowsConfig(columns=spec.runs, units=UNITS, length=64, grids=config.grids),
        "lm": lm,
        "lm_params": random_params(lm, jax.random.key(0), jnp.zeros((1, 2, 3), jnp.int32)),
        "vocoder": base.vocoder,
        "vocoder_params": base.vocoder_params,
        "decoding": UnitDecoding(temperatures=(1.0, 1.0, 1.0), max_new=12),
    }
    return ProsodicSpeechLM(**{**parts, **changes})
