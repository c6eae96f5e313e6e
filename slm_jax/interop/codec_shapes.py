"""What families of codecs share: the rules of SEANet's layers, of Transformers over frames, of averaged codebooks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.errors import UserError
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.decoders.seanet import SEANetDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.encoders.seanet import SEANetEncoderConfig
from slm_jax.interop.generator_shapes import conv_rules
from slm_jax.interop.hub_config import HubConfig
from slm_jax.interop.table import Rule, lstm
from slm_jax.interop.transforms import Arrays, Conv, Dense, Shape
from slm_jax.nn.seanet import SEANetShape
from slm_jax.quantizers.residual import ResidualVQConfig

PADDING = {"reflect": "mirror", "constant": "zeros", "zero": "zeros", "replicate": "repeat"}
"""`pad_mode` of a `config.json` -> ours."""
HUB_PADDING = {"mirror": "reflect", "zeros": "constant", "repeat": "replicate"}


@dataclass(frozen=True)
class Averaged:
    """Entries of a codebook <-> what averages leave behind, each of the kind that `parts` names.

    Kinds: "entries", "sums", "usage", "begun". Reading takes the entries, or sums over usage; written are codes that
    were used once each, since what they were averaged from is not among our parameters.
    """

    parts: tuple[str, ...]
    epsilon: float = 1e-5

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        ((codes, width),) = targets
        shapes = {"entries": (codes, width), "sums": (codes, width), "usage": (codes,), "begun": (1,)}
        return [shapes[part] for part in self.parts]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        found = dict(zip(self.parts, sources, strict=True))
        if "entries" in found:
            return [found["entries"]]
        usage = np.maximum(np.asarray(found["usage"], np.float32), self.epsilon)
        return [np.asarray(found["sums"], np.float32) / usage[:, None]]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        (entries,) = targets
        usage = np.ones(len(entries), np.float32)
        made = {"entries": entries, "sums": entries, "usage": usage, "begun": np.ones(1, np.float32)}
        return [made[part] for part in self.parts]


def seanet_parts(config: CodecConfig, family: str) -> tuple[SEANetEncoderConfig, SEANetDecoderConfig]:
    """Both sides of a codec; raises `UserError` where they are of another form than the family's."""
    encoder, decoder = config.encoder, config.decoder
    if not isinstance(encoder, SEANetEncoderConfig) or not isinstance(decoder, SEANetDecoderConfig):
        raise UserError(f"encoder, decoder: those of {family} are SEANet's")
    return encoder, decoder


def dac_parts(config: CodecConfig, family: str) -> tuple[DACEncoderConfig, DACDecoderConfig, ResidualVQConfig]:
    """Both sides of a codec and its quantizer; raises `UserError` where they are of another form than DAC's."""
    encoder, decoder, quantizer = config.encoder, config.decoder, config.quantizer
    if not isinstance(encoder, DACEncoderConfig) or not isinstance(decoder, DACDecoderConfig):
        raise UserError(f"encoder, decoder: those of {family} are DAC's")
    if not isinstance(quantizer, ResidualVQConfig):
        raise UserError(f"quantizer: that of {family} is a ResidualVQConfig")
    return encoder, decoder, quantizer


def seanet_rules(shape: SEANetShape, source: str, target: str, conv: str = "conv", up: str = "conv") -> Iterator[Rule]:
    """The rules of an encoder or a decoder; `conv` and `up`: what stands between a layer's number and its weights."""
    normed = shape.weight_norm
    for index, kind in enumerate(_layers(shape)):
        theirs, ours = f"{source}.{index}", f"{target}/layers_{index}"
        if kind == "conv":
            yield from conv_rules(f"{theirs}.{conv}", ours, Conv(), normed, normed)
        elif kind == "up":
            yield from conv_rules(f"{theirs}.{up}", ours, Conv(transposed=True), normed, normed)
        elif kind == "lstm":
            yield from lstm(f"{theirs}.lstm", ours, shape.lstm, Dense())
        elif kind == "unit":
            names = {"block.1": "block_1", "block.3": "block_3", **({"shortcut": "shortcut"} if shape.shortcut else {})}
            for their_part, our_part in names.items():
                yield from conv_rules(f"{theirs}.{their_part}.{conv}", f"{ours}/{our_part}", Conv(), normed, normed)


def _layers(shape: SEANetShape) -> list[str]:
    """What each numbered layer is."""
    units, lstm = ["unit"] * shape.residual_layers, ["lstm"] if shape.lstm else []
    if isinstance(shape, SEANetEncoderConfig):
        stages = [*units, "activation", "conv"] * len(shape.strides)
        return ["conv", *stages, *lstm, "activation", "conv"]
    return ["conv", *lstm, *(["activation", "up", *units] * len(shape.strides)), "activation", "conv"]


def read_seanet(fields: HubConfig, filters: int, shortcut: bool, padding: str, last: int) -> dict[str, Any]:
    """The fields of a SEANet in transformers' names, as arguments of its configs; the rest are defaults."""
    mode = str(fields.get("pad_mode", padding))
    fields.unless(mode in PADDING, "pad_mode", mode, f"must be one of {', '.join(PADDING)}")
    ratios = fields.numbers("upsampling_ratios", (8, 5, 4, 2))
    return {
        "filters": fields.number("num_filters", filters),
        "width": fields.number("hidden_size", 128),
        "strides": ratios[::-1],
        "kernel": fields.number("kernel_size", 7),
        "last_kernel": fields.number("last_kernel_size", last),
        "residual_kernel": fields.number("residual_kernel_size", 3),
        "residual_layers": fields.number("num_residual_layers", 1),
        "dilation_base": fields.number("dilation_growth_rate", 2),
        "compress": fields.number("compress", 2),
        "shortcut": fields.flag("use_conv_shortcut", shortcut),
        "before": PADDING.get(mode, "zeros"),
    }


def write_seanet(shape: SEANetShape) -> dict[str, Any]:
    """The fields of a SEANet in transformers' names."""
    return {
        "audio_channels": 1,
        "num_filters": shape.filters,
        "hidden_size": shape.width,
        "upsampling_ratios": list(shape.strides[::-1]),
        "kernel_size": shape.kernel,
        "last_kernel_size": shape.last_kernel,
        "residual_kernel_size": shape.residual_kernel,
        "num_residual_layers": shape.residual_layers,
        "dilation_growth_rate": shape.dilation_base,
        "compress": shape.compress,
        "use_conv_shortcut": shape.shortcut,
        "use_causal_conv": True,
        "pad_mode": HUB_PADDING[shape.before],
        "trim_right_ratio": 1.0,
    }


def both(settings: dict[str, Any]) -> dict[str, Any]:
    """Encoder and decoder of one shape, as arguments of `CodecConfig`."""
    return {"encoder": SEANetEncoderConfig(**settings), "decoder": SEANetDecoderConfig(**settings)}


def boxed_params(config: CodecConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    samples = jax.ShapeDtypeStruct((1, config.unit), jnp.float32)
    return jax.eval_shape(config.make().init, jax.random.key(0), samples)["params"]


def abstract_params(config: CodecConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))
