"""Published decoder shapes.

Every function takes overrides of any field, such as `vocabulary=504` for a TWIST-style model with a table of units.
"""

from typing import Any

from slm_jax.core.errors import nearest, require
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.grid import GridConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig

GPT2 = {"small": (12, 768, 12), "medium": (24, 1024, 16), "large": (36, 1280, 20), "xl": (48, 1600, 25)}
"""size -> layers, width, heads (Radford et al. 2019; `openai-community/gpt2*`)."""

OPT = {
    "125m": (12, 768, 12),
    "350m": (24, 1024, 16),
    "1.3b": (24, 2048, 32),
    "2.7b": (32, 2560, 32),
    "6.7b": (32, 4096, 32),
}
"""size -> layers, width, heads (Zhang et al. 2022, table 1; `facebook/opt-*`)."""

LLAMA = {
    "7b": (32, 4096, 32, 32, 11008, 32000, 10_000.0, 1e-6),
    "13b": (40, 5120, 40, 40, 13824, 32000, 10_000.0, 1e-6),
    "2-7b": (32, 4096, 32, 32, 11008, 32000, 10_000.0, 1e-5),
    "2-13b": (40, 5120, 40, 40, 13824, 32000, 10_000.0, 1e-5),
    "3-8b": (32, 4096, 32, 8, 14336, 128256, 500_000.0, 1e-5),
}
"""size -> layers, width, heads, kv_heads, hidden, vocabulary, rope base, epsilon (Touvron et al. 2023; Meta 2024)."""

QWEN2 = {
    "0.5b": (24, 896, 14, 2, 4864, 151936, True),
    "1.5b": (28, 1536, 12, 2, 8960, 151936, True),
    "7b": (28, 3584, 28, 4, 18944, 152064, False),
}
"""size -> layers, width, heads, kv_heads, hidden, vocabulary, tied (Yang et al. 2024; Qwen2.5 has the same shapes)."""

MISTRAL = {
    "7b": (32000, 10_000.0, 4096),
    "7b-v0.2": (32000, 1_000_000.0, None),
    "7b-v0.3": (32768, 1_000_000.0, None),
}
"""size -> vocabulary, rope base, window; all else is one (Jiang et al. 2023; `mistralai/Mistral-7B-v0.*`)."""

MUSICGEN = {"small": (24, 1024, 16), "medium": (48, 1536, 24), "large": (48, 2048, 32)}
"""size -> layers, width, heads (Copet et al. 2023; `facebook/musicgen-*`)."""


def gpt2(size: str = "small", **changes: Any) -> DecoderConfig:
    """GPT-2: learned positions, pre-norm, tanh GELU, tied head."""
    layers, width, heads = _shape("gpt2", GPT2, size)
    config = DecoderConfig(
        vocabulary=50257,
        layers=layers,
        width=width,
        heads=heads,
        hidden=4 * width,
        activation="gelu_tanh",
        max_positions=1024,
        dropout=0.1,
        attention_dropout=0.1,
    )
    return config.replace(**changes)


def opt(size: str = "125m", **changes: Any) -> DecoderConfig:
    """OPT: learned positions from row 2, ReLU, tied head; the 350M size is post-norm with a table 512 wide."""
    layers, width, heads = _shape("opt", OPT, size)
    odd = size == "350m"
    config = DecoderConfig(
        vocabulary=50272,
        layers=layers,
        width=width,
        heads=heads,
        hidden=4 * width,
        embed_width=512 if odd else None,
        norm_order="post" if odd else "pre",
        final_norm=not odd,
        activation="relu",
        position_offset=2,
        max_positions=2048,
        dropout=0.1,
    )
    return config.replace(**changes)


def llama(size: str = "7b", **changes: Any) -> DecoderConfig:
    """LLaMA: rotary positions, RMS norm, gated SiLU, no biases, untied head."""
    layers, width, heads, kv_heads, hidden, vocabulary, base, epsilon = _shape("llama", LLAMA, size)
    config = DecoderConfig(
        vocabulary=vocabulary,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        hidden=hidden,
        norm="rms",
        norm_epsilon=epsilon,
        activation="silu",
        gated=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        positions="rope",
        rope_base=base,
        tied_head=False,
    )
    return config.replace(**changes)


def qwen2(size: str = "0.5b", **changes: Any) -> DecoderConfig:
    """Qwen2: a LLaMA with biases on query, key and value, a slower rotary base and a head tied in the small sizes."""
    layers, width, heads, kv_heads, hidden, vocabulary, tied = _shape("qwen2", QWEN2, size)
    config = llama(
        "7b",
        vocabulary=vocabulary,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        hidden=hidden,
        norm_epsilon=1e-6,
        qkv_bias=True,
        rope_base=1_000_000.0,
        tied_head=tied,
    )
    return config.replace(**changes)


def mistral(size: str = "7b", **changes: Any) -> DecoderConfig:
    """Mistral: a LLaMA of four query heads to a key head, the first with a sliding window."""
    vocabulary, base, window = _shape("mistral", MISTRAL, size)
    config = llama("7b", vocabulary=vocabulary, kv_heads=8, hidden=14336, norm_epsilon=1e-5, rope_base=base)
    return config.replace(**{"window": window, **changes})


def gslm_transformer_lm_big(units: int = 100, **changes: Any) -> DecoderConfig:
    """The unit language model of GSLM (Lakhotia et al. 2021; fairseq `transformer_lm_big`).

    12 layers, 1024 wide, ReLU, pre-norm, sinusoids from position 2, tokens scaled by 32, tied head. `vocabulary` is
    that of fairseq: 4 special tokens and the units, filled up to a multiple of 8.
    """
    config = DecoderConfig(
        vocabulary=-(-(units + 4) // 8) * 8,
        layers=12,
        width=1024,
        heads=16,
        hidden=4096,
        activation="relu",
        positions="sinusoidal",
        position_offset=2,
        embed_scale=32.0,
        dropout=0.1,
        attention_dropout=0.1,
    )
    return config.replace(**changes)


def audiolm_stage(vocabulary: int, **changes: Any) -> DecoderConfig:
    """One of the three stages of AudioLM (Borsos et al. 2022, section IV-B): a T5 decoder without an encoder.

    12 layers, 1024 wide, 16 heads, distances in buckets shared by all layers, scores without scale, RMS norms, no
    biases. The paper gives 0.3 B parameters a stage, which 12 layers of this width do not add up to: 151 M, or 201 M
    with `gated`; what is wider there (`head_width`, say) is not told.
    """
    config = DecoderConfig(
        vocabulary=vocabulary,
        layers=12,
        width=1024,
        heads=16,
        hidden=4096,
        norm="rms",
        norm_epsilon=1e-6,
        activation="relu",
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        positions="none",
        relative_bias=RelativeBiasConfig(buckets=32, max_distance=128, bidirectional=False),
        attention_scale=1.0,
        tied_head=False,
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
    )
    return config.replace(**changes)


def musicgen(size: str = "small", books: int = 4, codes: int = 2048, **changes: Any) -> MultiStreamConfig:
    """MusicGen's decoder: its codebooks summed, sinusoids with cosines first, no biases, a text to listen to.

    `changes` are those of the stack. Without a text (`context_width=None`) it is a plain decoder of codes.
    """
    layers, width, heads = _shape("musicgen", MUSICGEN, size)
    body = DecoderConfig(
        vocabulary=1,
        layers=layers,
        width=width,
        heads=heads,
        hidden=4 * width,
        context_width=width,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        positions="cosines_first",
        dropout=0.1,
    )
    return MultiStreamConfig(streams=(codes,) * books, body=body.replace(**changes), blanks=True)


def moshi(words: int = 32_000, codes: int = 2048, books: int = 8, written: int | None = None) -> TemporalDepthConfig:
    """Moshi (Défossez et al. 2024): text, its own codes and those of who is heard, summed; 7.69 B parameters.

    The large transformer writes the text, the small one the codes, with kernels of its own for each. `written`: books
    that are written, its own as released unless it says more (the paper trains on both sides). An empty entry is what
    its authors call the initial token.
    """
    body = llama("7b", vocabulary=1, hidden=11_264, norm_epsilon=1e-8, window=3000, max_positions=None, tied_head=True)
    temporal = MultiStreamConfig(streams=(words, *[codes] * (2 * books)), body=body, blanks=True, heads=1)
    depth = DepthConfig(width=1024, layers=6, heads=16, hidden=2816)
    return TemporalDepthConfig(temporal=temporal, depth=depth, written=1 + (books if written is None else written))


def pgslm(units: int = 100, durations: int = 21, classes: int = 32, **changes: Any) -> MultiStreamConfig:
    """The language model of pGSLM (Kharitonov et al. 2021; fairseq `transformer_ulm_big`), of classes.

    The stack of GSLM over units, durations in frames and classes of log F0, each with fairseq's four special ids behind
    its own; only the vectors of units are scaled. `changes` are those of the stack.
    """
    body = gslm_transformer_lm_big(units, **{"vocabulary": 1, **changes})
    return MultiStreamConfig(streams=(units + 4, durations + 4, classes + 4), body=body, scaled=1)


def pgslm_continuous(units: int = 100, **changes: Any) -> MultiStreamConfig:
    """The same with durations and log F0 as real numbers: frames up to 63, ln F0 within 3 of the speaker's mean."""
    frames, log_f0 = GridConfig(lowest=0.0, step=1.0, count=64), GridConfig(lowest=-3.0, step=1 / 128, count=769)
    streams = (units + 4, frames.count, log_f0.count)
    return pgslm(units, **changes).replace(streams=streams, grids=(None, frames, log_f0))


def _shape(family: str, table: dict[str, Any], size: str) -> Any:
    require(size in table, f"{family} size", size, f"must be one of {', '.join(table)}{nearest(size, table)}")
    return table[size]
