"""Units of speech, and a speech-aware LM that reads them, on drawn weights: all parts are real, nobody trained them."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig, PhoneticTokenizer
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.assemblies.unit_sequences import BytePairTokenizer, UnitSequences
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from slm_jax.quantizers.postprocess import Postprocess
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding, SpeechAwareSystem
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import PLAIN
from slm_jax.token_compression.bpe import UnitBPE
from slm_jax.token_compression.dedup import dedup_row
from tests.contracts.checks import random_params
from tests.serving.drawn import noise

UNITS, PAIRS, WIDTH = 8, 24, 16


def drawn_tokenizer() -> PhoneticTokenizer:
    """MFCC and random centroids."""
    centroids = np.random.default_rng(0).normal(size=(UNITS, 39)) * 10
    post = Postprocess(jnp.zeros(39), jnp.eye(39))
    return PhoneticTokenizer(MFCCFeaturesConfig(), None, post, jnp.asarray(centroids, jnp.float32))


def drawn_sequences(compression: str = "bpe") -> UnitSequences:
    """One of the three compressions, byte pairs learnt from a few noises."""
    tokenizer = drawn_tokenizer()
    if compression != "bpe":
        return UnitSequences(tokenizer, compression == "dedup")
    heard = tokenizer.encode_all([noise(4.0, seed) for seed in range(20, 26)])
    bpe = UnitBPE.train([dedup_row(units)[0] for units in heard], units=UNITS, vocabulary=PAIRS)
    return UnitSequences(BytePairTokenizer(tokenizer, bpe))


def drawn_model(ids: int) -> SpeechAwareLMConfig:
    """A table of `ids` vectors, a strided convolution, a Transformer, one layer of language model."""
    conv = ConvAdapterConfig(layers=((WIDTH, 3, 2, 1),), activation="gelu")
    transformer = TransformerAdapterConfig(width=WIDTH, layers=1, heads=2, hidden=24, sinusoids=True)
    return SpeechAwareLMConfig(
        encoders=(UnitEmbeddingConfig(units=ids, width=WIDTH),),
        adapter=ChainConfig(parts=(conv, transformer)),
        lm=llama("7b", vocabulary=264, layers=1, width=WIDTH, heads=2, kv_heads=1, hidden=24),
    )


def drawn_discrete_slu(compression: str = "bpe") -> SpeechAwareSystem:
    """The whole system; it speaks in bytes."""
    sequences = drawn_sequences(compression)
    config = drawn_model(sequences.size)
    model, ids = config.make(), jnp.zeros((1, 4), jnp.int32)
    clips = jnp.zeros((1, 1, 8), jnp.int32)
    params = random_params(
        model, jax.random.key(1), clips, jnp.ones(clips.shape, bool), ids, ids - 1, ids == 0, scale=0.4
    )
    layout = PromptLayout(SpecialsConfig().make(), PLAIN, config.frames_out)
    decoding = AnswerDecoding(max_new=8)
    return SpeechAwareSystem(model, {"params": params}, layout, 16_000, decoding, sequences)
