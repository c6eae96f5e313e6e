"""Language models of codes, alone and with text, on drawn weights: all parts are real, and nobody trained them."""

import jax
import jax.numpy as jnp

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.data.examples.dialogue_rows import DialogueRowsConfig
from slm_jax.data.examples.text_code_rows import TextCodeRowsConfig
from slm_jax.layouts.beside import TimeAligned
from slm_jax.layouts.layout import MARKS, Layout
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.table import Scheme
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.serving.code_speech_lm import CodeDecoding, CodeSpeechLM
from slm_jax.serving.duplex_speech_lm import DuplexDecoding, DuplexSpeechLM
from slm_jax.serving.text_code_speech_lm import TextCodeDecoding, TextCodeSpeechLM
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from tests.contracts.checks import random_params
from tests.serving.drawn_cascade import BOOKS, CODEC, CODES

BODY = llama("7b", vocabulary=1, layers=1, width=16, heads=2, kv_heads=2, hidden=24, tied_head=True)
FLAT = MultiStreamConfig(streams=(CODES,) * BOOKS, body=BODY, blanks=True)
DEEP = TemporalDepthConfig(temporal=FLAT.replace(heads=0), depth=DepthConfig(width=8, layers=1, heads=1, hidden=16))


def drawn_code_lm(scheme: Scheme, **changes) -> CodeSpeechLM:
    """A narrow codec and a model of one layer."""
    codec = CODEC.make()
    variables = codec.init(jax.random.key(0), jnp.zeros((1, 3200)))
    lm = (DEEP if scheme.ordered else FLAT).make()
    params = random_params(lm, jax.random.key(1), jnp.zeros((1, 2, BOOKS), jnp.int32))
    parts = {
        "codec": CodecTokenizer(CODEC, variables),
        "lm": lm,
        "lm_params": params,
        "scheme": scheme,
        "decoding": CodeDecoding(seconds=0.2),
        "prompt_s": 0.2,
    }
    return CodeSpeechLM(**{**parts, **changes})


def drawn_text_code_lm(scheme: Scheme, layout: Layout, letters: str = " abcdef", **changes) -> TextCodeSpeechLM:
    """The same with a text stream of a few letters."""
    tokens = CharacterTokenizerConfig(characters=letters)
    alone = drawn_code_lm(scheme)
    rows = TextCodeRowsConfig(
        columns=alone.codec.spec.columns,
        scheme=scheme,
        layout=layout,
        tokens=tokens,
        frames=20,
        frames_per_second=alone.codec.spec.frames_per_second,
    )
    flat = FLAT.replace(streams=(len(tokens.characters) + MARKS, *FLAT.streams))
    lm = (DEEP.replace(temporal=flat.replace(heads=1)) if scheme.ordered else flat).make()
    parts = {
        "codec": alone.codec,
        "lm": lm,
        "lm_params": random_params(lm, jax.random.key(1), jnp.zeros((1, 2, 1 + BOOKS), jnp.int32)),
        "rows": rows,
        "decoding": TextCodeDecoding(seconds=0.2),
        "prompt_s": 0.2,
    }
    return TextCodeSpeechLM(**{**parts, **changes})


def drawn_duplex(written: int | None = None, letters: str = " abcdef", **changes) -> DuplexSpeechLM:
    """Text and two sides of a narrow codec, Moshi's delays, a window of 64 frames; `written` None: its own side."""
    tokens, codec = CharacterTokenizerConfig(characters=letters), drawn_code_lm(Delay(delays=(0, 1, 1))).codec
    rows = DialogueRowsConfig(
        columns=tuple(f"{name}{side}" for side in ("_of_1", "") for name in codec.spec.columns),
        scheme=Delay(delays=(0, 1, 1, 0, 1, 1)),
        layout=TimeAligned(),
        tokens=tokens,
        frames=20,
        frames_per_second=codec.spec.frames_per_second,
    )
    streams = (len(tokens.characters) + MARKS, *FLAT.streams, *FLAT.streams)
    flat = FLAT.replace(streams=streams, body=BODY.replace(window=64, max_positions=None), heads=1)
    lm = DEEP.replace(temporal=flat, written=1 + BOOKS if written is None else written).make()
    parts = {
        "codec": codec,
        "lm": lm,
        "lm_params": random_params(lm, jax.random.key(1), jnp.zeros((1, 2, len(streams)), jnp.int32)),
        "rows": rows,
        "decoding": DuplexDecoding(seconds=0.1),
    }
    return DuplexSpeechLM(**{**parts, **changes})
