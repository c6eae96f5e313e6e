"""DAC (`DacModel` of transformers, and the names of the original repository) and SNAC (its own folders)."""

from collections.abc import Iterator
from typing import Any

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.errors import UserError
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.interop.codec_shapes import abstract_params, boxed_params, dac_parts
from slm_jax.interop.dac_shapes import book_rules, decoder_layers, encoder_layers, layer_rules, numbered_rules
from slm_jax.interop.family import Family
from slm_jax.interop.generator_shapes import RENAMES
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig

UNSAID = (
    *("encoder.dtype", "decoder.dtype", "encoder.weight_norm", "decoder.weight_norm", "whole"),
    *("quantizer.dropout", "quantizer.estimator"),
)
"""Of training and running; whether weights are normed is told by their names."""


def read_dac(hub: Hub) -> CodecConfig:
    """Our config of the `config.json` of a `DacModel`."""
    fields = HubConfig("dac", hub)
    fields.read |= {"hop_length", "quantizer_dropout", "codebook_loss_weight", "commitment_loss_weight"}
    fields.read |= {"upsampling_ratios", "initializer_range"}
    strides = fields.numbers("downsampling_ratios", (2, 4, 8, 8))
    up = tuple(fields.get("upsampling_ratios", strides[::-1]))
    fields.unless(up == strides[::-1], "upsampling_ratios", up, f"must be {strides[::-1]}, the encoder's turned round")
    first = fields.number("encoder_hidden_size", 64)
    width = fields.number("hidden_size", first * 2 ** len(strides))
    encoder = DACEncoderConfig(channels=first, width=width, strides=strides, weight_norm=False)
    decoder = DACDecoderConfig(
        channels=fields.number("decoder_hidden_size", 1536), width=width, strides=strides, weight_norm=False
    )
    return fields.make(
        CodecConfig,
        encoder=encoder,
        decoder=decoder,
        quantizer=_books(fields, width, fields.number("n_codebooks", 9), (), 1024),
        whole=True,
        rate_hz=fields.number("sampling_rate", 16_000),
    )


def _books(fields: HubConfig, width: int, books: int, strides: tuple[int, ...], size: int) -> ResidualVQConfig:
    codebook = CodebookConfig(
        size=fields.number("codebook_size", size),
        width=fields.number("codebook_dim", 8),
        learning="gradient",
        normalised=True,
    )
    return ResidualVQConfig(width=width, books=books, codebook=codebook, projection="each", strides=strides)


def write_dac(config: CodecConfig) -> dict[str, Any]:
    """The `config.json` of a `DacModel`; raises `UserError` for another form of codec."""
    encoder, decoder, quantizer = dac_parts(config, "dac")
    hub = {
        "model_type": "dac",
        "architectures": ["DacModel"],
        "encoder_hidden_size": encoder.channels,
        "decoder_hidden_size": decoder.channels,
        "hidden_size": encoder.width,
        "downsampling_ratios": list(encoder.strides),
        "upsampling_ratios": list(encoder.strides[::-1]),
        "n_codebooks": quantizer.books,
        "codebook_size": quantizer.codebook.size,
        "codebook_dim": quantizer.codebook.width,
        "sampling_rate": config.rate_hz,
    }
    require_said("dac", config, read_dac(hub), UNSAID)
    return hub


def dac_table(config: CodecConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    if spelling == "original":
        return original_table(config)
    encoder, decoder, quantizer = dac_parts(config, "dac")
    layers = (*_named(encoder, "encoder"), *_named(decoder, "decoder"))
    return Table(rules=(*layers, *book_rules(quantizer, theirs_normed=False)), renames=RENAMES)


def original_table(config: CodecConfig, spelling: str = "original") -> Table:
    """The names of DAC's own repository, and of SNAC's."""
    encoder, decoder, quantizer = dac_parts(config, "dac")
    rules = (
        *numbered_rules(encoder, "encoder.block", "encoder"),
        *numbered_rules(decoder, "decoder.model", "decoder"),
        *book_rules(quantizer, theirs_normed=True),
    )
    return Table(rules=rules, ignored=(r".*\.rel_pos\..*",), renames=RENAMES)


def _named(c: DACEncoderConfig | DACDecoderConfig, part: str) -> Iterator[Rule]:
    """One side in transformers' names."""
    inwards = isinstance(c, DACEncoderConfig)
    for place, kind in encoder_layers(c) if isinstance(c, DACEncoderConfig) else decoder_layers(c):
        if place == (0,):
            theirs = "conv1"
        elif len(place) == 1:
            theirs = "snake1" if kind == "snake" else "conv2"
        else:
            theirs = f"block.{place[0] - 1}.{_within(place[1:], inwards)}"
        ours = "/".join(f"layers_{number}" for number in place)
        yield from layer_rules(f"{part}.{theirs}", f"{part}/{ours}", kind, c.weight_norm, False)


def _within(place: tuple[int, ...], inwards: bool) -> str:
    """The name of a layer of a block."""
    if len(place) == 2:
        unit, layer = place
        return f"res_unit{unit + 1 - (0 if inwards else 2)}.{('snake1', 'conv1', 'snake2', 'conv2')[layer]}"
    names = {3: "snake1", 4: "conv1"} if inwards else {0: "snake1", 1: "conv_t1"}
    return names[place[0]]


def read_snac(hub: Hub) -> CodecConfig:
    """Our config of the `config.json` of a SNAC folder."""
    fields = HubConfig("snac", hub, {"depthwise": (True,)})
    strides, up = fields.numbers("encoder_rates", (3, 3, 7, 7)), fields.numbers("decoder_rates", (7, 7, 3, 3))
    fields.unless(up == strides[::-1], "decoder_rates", up, f"must be {strides[::-1]}, the encoder's turned round")
    first = fields.number("encoder_dim", 64)
    width = fields.number("latent_dim", first * 2 ** len(strides))
    window = None if hub.get("attn_window_size", 32) is None else fields.number("attn_window_size", 32)
    fields.read.add("attn_window_size")
    rates = fields.numbers("vq_strides", (8, 4, 2, 1))
    shape: dict[str, Any] = {"width": width, "strides": strides, "depthwise": True, "window": window}
    encoder = DACEncoderConfig(channels=first, **shape)
    noise = fields.flag("noise", True)
    decoder = DACDecoderConfig(channels=fields.number("decoder_dim", 1536), noise=noise, **shape)
    quantizer = _books(fields, width, len(rates), rates, 4096)
    return fields.make(
        CodecConfig,
        encoder=encoder,
        decoder=decoder,
        quantizer=quantizer,
        whole=True,
        rate_hz=fields.number("sampling_rate", 44_100),
    )


def write_snac(config: CodecConfig) -> dict[str, Any]:
    """The `config.json` of a SNAC folder; raises `UserError` for another form of codec."""
    encoder, decoder, quantizer = dac_parts(config, "snac")
    if not encoder.depthwise:
        raise UserError("encoder: snac's is a DACEncoderConfig whose convolutions see one channel each")
    hub = {
        "sampling_rate": config.rate_hz,
        "encoder_dim": encoder.channels,
        "encoder_rates": list(encoder.strides),
        "latent_dim": encoder.width,
        "decoder_dim": decoder.channels,
        "decoder_rates": list(encoder.strides[::-1]),
        "attn_window_size": encoder.window,
        "codebook_size": quantizer.codebook.size,
        "codebook_dim": quantizer.codebook.width,
        "vq_strides": list(quantizer.strides or (1,) * quantizer.books),
        "noise": decoder.noise,
        "depthwise": True,
    }
    require_said("snac", config, read_snac(hub), UNSAID)
    return hub


def is_snac(hub: Hub) -> bool:
    """Folders of SNAC have no `model_type`."""
    return "model_type" not in hub and {"encoder_rates", "vq_strides"} <= hub.keys()


DAC = Family(
    name="dac",
    config_type=CodecConfig,
    spellings=("transformers", "original"),
    matches=is_type("dac"),
    read_config=read_dac,
    write_config=write_dac,
    table=dac_table,
    abstract=abstract_params,
    boxed=boxed_params,
)
SNAC = Family(
    name="snac",
    config_type=CodecConfig,
    spellings=("original",),
    matches=is_snac,
    read_config=read_snac,
    write_config=write_snac,
    table=original_table,
    abstract=abstract_params,
    boxed=boxed_params,
)
