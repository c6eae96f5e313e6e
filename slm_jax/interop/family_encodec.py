"""EnCodec at 24 kHz: `EncodecModel` of transformers, and the names of the original repository.

Codebooks come as parameters (`learning="gradient"`): the averages behind them are not read.
"""

import math
from typing import Any

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.errors import UserError
from slm_jax.interop.codec_shapes import (
    Averaged,
    abstract_params,
    both,
    boxed_params,
    read_seanet,
    seanet_parts,
    seanet_rules,
    write_seanet,
)
from slm_jax.interop.family import Family
from slm_jax.interop.generator_shapes import RENAMES
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig

FIXED: dict[str, tuple] = {
    "audio_channels": (1,),
    "normalize": (False,),
    "chunk_length_s": (),
    "overlap": (),
    "norm_type": ("weight_norm",),
    "use_causal_conv": (True,),
    "trim_right_ratio": (1.0,),
}
BANDWIDTHS = [1.5, 3.0, 6.0, 12.0, 24.0]
UNSAID = ("encoder.dtype", "decoder.dtype", "quantizer.dropout", "quantizer.estimator", "whole")
"""Of training and running."""
PLACES = {
    "transformers": ("layers", "conv", "conv", "quantizer.layers.{i}.codebook"),
    "original": ("model", "conv.conv", "convtr.convtr", "quantizer.vq.layers.{i}._codebook"),
}
"""Spelling -> list of layers, the names before weights of convolutions and of transposed ones, codebooks."""


def read_config(hub: Hub) -> CodecConfig:
    """Our config of a `config.json`."""
    fields = HubConfig("encodec", hub, FIXED)
    settings = read_seanet(fields, filters=32, shortcut=True, padding="reflect", last=7)
    settings["lstm"] = fields.number("num_lstm_layers", 2)
    width, size = settings["width"], fields.number("codebook_size", 1024)
    fields.unless(fields.number("codebook_dim", width) == width, "codebook_dim", fields.get("codebook_dim"), "as wide")
    rate, bits = fields.number("sampling_rate", 24_000), (size - 1).bit_length()
    hop = math.prod(settings["strides"])
    widest = max(fields.get("target_bandwidths", BANDWIDTHS))
    books = int(1000 * widest // (-(-rate // hop) * bits))
    fields.unless(books > 0, "target_bandwidths", widest, f"too low for one book of {bits} bits")
    codebook = CodebookConfig(size=size, width=width, learning="gradient")
    quantizer = ResidualVQConfig(width=width, books=max(books, 1), codebook=codebook)
    return fields.make(CodecConfig, **both(settings), quantizer=quantizer, rate_hz=rate)


def write_config(config: CodecConfig) -> dict[str, Any]:
    """The `config.json` of `EncodecModel`; raises `UserError` for another form of codec."""
    (encoder, _), quantizer = seanet_parts(config, "encodec"), config.quantizer
    if not isinstance(quantizer, ResidualVQConfig) or quantizer.projection != "none":
        raise UserError("quantizer: encodec's is a plain ResidualVQConfig")
    frames, bits = -(-config.rate_hz // config.latent_hop), (quantizer.codebook.size - 1).bit_length()
    counts = sorted({min(2**power, quantizer.books) for power in range(1, 1 + quantizer.books.bit_length())})
    hub = {
        "model_type": "encodec",
        "architectures": ["EncodecModel"],
        **write_seanet(encoder),
        "norm_type": "weight_norm",
        "normalize": False,
        "num_lstm_layers": encoder.lstm,
        "codebook_size": quantizer.codebook.size,
        "codebook_dim": quantizer.codebook.width,
        "sampling_rate": config.rate_hz,
        "target_bandwidths": [count * frames * bits / 1000 for count in counts],
    }
    require_said("encodec", config, read_config(hub), UNSAID)
    return hub


def table(config: CodecConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    (encoder, decoder), (layers, conv, up, codebook) = seanet_parts(config, "encodec"), PLACES[spelling]
    kinds = {"embed": "entries", "embed_avg": "sums", "cluster_size": "usage", "inited": "begun"}
    books = Rule(
        tuple(f"{codebook}.{name}" for name in kinds), ("quantizer/codebooks/entries",), Averaged(tuple(kinds.values()))
    )
    return Table(
        rules=(
            *seanet_rules(encoder, f"encoder.{layers}", "encoder", conv, up),
            *seanet_rules(decoder, f"decoder.{layers}", "decoder", conv, up),
            books,
        ),
        renames=RENAMES,
    )


ENCODEC = Family(
    name="encodec",
    config_type=CodecConfig,
    spellings=("transformers", "original"),
    matches=is_type("encodec"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
