"""The rules of DAC's and SNAC's convolutions, whose original files number them as we do, and of their codebooks."""

from collections.abc import Iterator

from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.interop.generator_shapes import conv_rules
from slm_jax.interop.table import Rule, norm, rule
from slm_jax.interop.transforms import Conv, Dense, Fused, Reshape
from slm_jax.quantizers.residual import ResidualVQConfig

UNIT = ("snake", "conv", "snake", "conv")
ALPHA = Reshape((1, -1, 1))
Place = tuple[int, ...]


def encoder_layers(c: DACEncoderConfig) -> Iterator[tuple[Place, str]]:
    """(numbers of a layer, what it is) from the waveform on; activations without weights are left out."""
    yield (0,), "conv"
    for block in range(1, 1 + len(c.strides)):
        yield from _units((block,), 0)
        yield (block, 3), "snake"
        yield (block, 4), "conv"
    after = 1 + len(c.strides)
    if c.window is not None or not c.depthwise:
        yield (after,), "snake" if not c.depthwise else "attention"
        after += 1
    yield (after,), "conv"


def decoder_layers(c: DACDecoderConfig) -> Iterator[tuple[Place, str]]:
    """The same from the latents on."""
    begin = ["conv", "conv", *([] if c.window is None else ["attention"])] if c.depthwise else ["conv"]
    for place, kind in enumerate(begin):
        yield (place,), kind
    for block in range(len(begin), len(begin) + len(c.strides)):
        yield (block, 0), "snake"
        yield (block, 1), "up"
        if c.noise:
            yield (block, 2), "noise"
        yield from _units((block,), 3 if c.noise else 2)
    after = len(begin) + len(c.strides)
    yield (after,), "snake"
    yield (after + 1,), "conv"


def _units(at: Place, first: int) -> Iterator[tuple[Place, str]]:
    for unit in range(first, first + 3):
        for layer, kind in enumerate(UNIT):
            yield (*at, unit, layer), kind


def layer_rules(source: str, target: str, kind: str, ours_normed: bool, theirs_normed: bool) -> Iterator[Rule]:
    """The rules of one layer."""
    if kind == "snake":
        yield rule(f"{source}.alpha", f"{target}/alpha", ALPHA)
    elif kind == "attention":
        yield from norm(f"{source}.norm", f"{target}/norm")
        kernels = tuple(f"{target}/attention/{name}/kernel" for name in ("query", "key", "value"))
        yield Rule((f"{source}.to_qkv.weight",), kernels, Fused(Dense()))
        yield rule(f"{source}.to_out.weight", f"{target}/attention/out/kernel", Dense(2))
    elif kind == "noise":
        yield from conv_rules(f"{source}.linear", f"{target}/gain", Conv(), ours_normed, theirs_normed)[:-1]
    else:
        layout = Conv(transposed=kind == "up")
        yield from conv_rules(source, target, layout, ours_normed, theirs_normed)


def numbered_rules(c: DACEncoderConfig | DACDecoderConfig, source: str, target: str) -> Iterator[Rule]:
    """All rules of an encoder or a decoder in the original files; `source`: with the name of its first list."""
    layers = encoder_layers(c) if isinstance(c, DACEncoderConfig) else decoder_layers(c)
    for place, kind in layers:
        theirs = ".block.".join(map(str, place))
        ours = "/".join(f"layers_{number}" for number in place)
        yield from layer_rules(f"{source}.{theirs}", f"{target}/{ours}", kind, c.weight_norm, True)


def book_rules(quantizer: ResidualVQConfig, theirs_normed: bool) -> Iterator[Rule]:
    """Codebooks, each with maps of its own."""
    yield rule("quantizer.quantizers.{i}.codebook.weight", "quantizer/codebooks/entries")
    for book in range(quantizer.books):
        for theirs, ours in (("in_proj", "intos"), ("out_proj", "backs")):
            source = f"quantizer.quantizers.{book}.{theirs}"
            yield from conv_rules(source, f"quantizer/{ours}_{book}", Conv(), True, theirs_normed)
