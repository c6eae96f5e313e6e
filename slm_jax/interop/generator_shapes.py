"""HiFi-GAN's generator as its users have it: fields of a `config.json`, and the rules of its convolutions.

Layers are called `ups` in the original repository and in fairseq, `upsampler` in transformers; each weight may stand
there plain or as a weight norm, in PyTorch's old or new spelling, whatever ours is.
"""

from collections.abc import Iterator
from typing import Any

from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.interop.hub_config import HubConfig
from slm_jax.interop.table import Rule, rule
from slm_jax.interop.transforms import Conv, Folded, Transform, Unfolded

TRAINING_FIELDS = (
    *("num_gpus", "batch_size", "learning_rate", "adam_b1", "adam_b2", "lr_decay", "seed", "segment_size"),
    *("num_workers", "dist_config", "fmax_for_loss", "num_freq", "input_training_file", "input_validation_file"),
    *("dur_prediction_weight", "initializer_range"),
)
"""How a published generator was trained."""
UPSAMPLERS = {"original": "ups", "fairseq": "ups", "transformers": "upsampler"}
RENAMES = (
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)
UNSAID = ("generator.weight_norm", "generator.dtype")
"""Not in a `config.json`: whether weights are normed is told by the weights' names."""


def read_generator(fields: HubConfig, weight_norm: bool) -> HiFiGANConfig:
    """The generator of a `config.json`; every family calls its fields the same.

    `weight_norm`: whether our parameters keep lengths and directions apart, which no `config.json` says.
    """
    fields.read |= set(TRAINING_FIELDS)
    resblock = str(fields.get("resblock", "1"))
    fields.unless(resblock in ("1", "2"), "resblock", resblock, "must be 1 or 2")
    slope = fields.number("leaky_relu_slope", 0.1)
    fields.unless(slope == 0.1, "leaky_relu_slope", slope, "only 0.1 is supported")
    dilations = fields.get("resblock_dilation_sizes", [[1, 3, 5]] * 3)
    good = isinstance(dilations, list | tuple) and all(_whole_numbers(row) for row in dilations)
    fields.unless(good, "resblock_dilation_sizes", dilations, "must be lists of positive whole numbers")
    return HiFiGANConfig(
        upsample=fields.numbers("upsample_rates", (4, 4, 4, 4)),
        upsample_kernels=fields.numbers("upsample_kernel_sizes", (8, 8, 8, 8)),
        channels=fields.number("upsample_initial_channel", 512),
        resblock=resblock if resblock in ("1", "2") else "1",
        resblock_kernels=fields.numbers("resblock_kernel_sizes", (3, 7, 11)),
        resblock_dilations=tuple(map(tuple, dilations)) if good else ((1, 3, 5),) * 3,
        weight_norm=weight_norm,
    )


def write_generator(config: HiFiGANConfig) -> dict[str, Any]:
    """The fields of the generator."""
    return {
        "upsample_rates": list(config.upsample),
        "upsample_kernel_sizes": list(config.upsample_kernels),
        "upsample_initial_channel": config.channels,
        "resblock_kernel_sizes": list(config.resblock_kernels),
        "resblock_dilation_sizes": [list(row) for row in config.resblock_dilations],
    }


def generator_rules(
    config: HiFiGANConfig, spelling: str, source: str = "", target: str = "generator/", first: Transform | None = None
) -> Iterator[Rule]:
    """The rules of all convolutions. `first`: how `conv_pre` is laid out, where its inputs have another order."""
    normed = spelling != "transformers"  # how a file of this spelling has its weights
    same, turned = Conv(), Conv(transposed=True)
    for theirs, ours in _layers(config, UPSAMPLERS[spelling]):
        layout = turned if ours.startswith("up_") else first or same if ours == "conv_pre" else same
        yield from conv_rules(f"{source}{theirs}", f"{target}{ours}", layout, config.weight_norm, normed)


def conv_rules(source: str, target: str, layout: Transform, ours_normed: bool, theirs_normed: bool) -> tuple[Rule, ...]:
    """The rules of one convolution with bias, of which the first for its weight is the one that export follows.

    A folded kernel is exported as a plain weight: what it was made of is lost.
    """
    parts, plain = (f"{source}.weight_g", f"{source}.weight_v"), (f"{source}.weight",)
    if ours_normed:
        targets = (f"{target}/weight_g", f"{target}/weight_v")
        kept, whole = Rule(parts, targets, layout), Rule(plain, targets, Unfolded(layout))
        either = (kept, whole) if theirs_normed else (whole, kept)
    else:
        kernel = (f"{target}/kernel",)
        either = (Rule(plain, kernel, layout), Rule(parts, kernel, Folded(layout)))
    return (*either, rule(f"{source}.bias", f"{target}/bias"))


def _layers(config: HiFiGANConfig, upsampler: str) -> Iterator[tuple[str, str]]:
    """(their name, ours) of each convolution; their blocks are numbered through all stages."""
    per_stage = len(config.resblock_kernels)
    yield "conv_pre", "conv_pre"
    for stage in range(len(config.upsample)):
        yield f"{upsampler}.{stage}", f"up_{stage}"
        for block, dilations in enumerate(config.resblock_dilations):
            theirs, ours = f"resblocks.{stage * per_stage + block}", f"block_{stage}_{block}"
            for index in range(len(dilations)):
                if config.resblock == "2":
                    yield f"{theirs}.convs.{index}", f"{ours}/dilated_{index}"
                else:
                    yield f"{theirs}.convs1.{index}", f"{ours}/dilated_{index}"
                    yield f"{theirs}.convs2.{index}", f"{ours}/plain_{index}"
    yield "conv_post", "conv_post"


def _whole_numbers(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) > 0 and all(type(item) is int and item > 0 for item in row)
