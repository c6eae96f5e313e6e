"""The F0 VQ-VAE of SpiRit-LM (and, of F0 alone, of Polyak et al. 2021): its config and the names of its weights.

A checkpoint is one file of `torch.save` with `model`; its `config.yaml` says `features` and the parameters of encoder,
decoder and codebook. Ours is read from a `config.json` with the same fields. Where log F0 is meant, as no release
does, `features` begin with `log_`; a `spread` that F0 is divided by has its own field.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.assemblies.pitch_codec import PitchCodecConfig
from slm_jax.audio.pitch_features import PitchFeaturesConfig
from slm_jax.core.types import Frames
from slm_jax.decoders.track import TrackDecoderConfig
from slm_jax.encoders.track import TrackEncoderConfig
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import Hub, HubConfig, require_said
from slm_jax.interop.table import Rule, Table, rule, weights
from slm_jax.interop.transforms import SAME, Conv
from slm_jax.nn.track_convs import TrackShape
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig

PARTS = {"encoder_params", "decoder_params", "vq_params"}
LEVEL = "level_blocks.0.model"
FIXED = {"levels": (1,), "checkpoint_res": (0, False)}
OF_TRAINING = {"zero_out", "mu"}
SETTINGS = {"speaker_stats", "f0_normalize", "f0_median", "sampling_rate"}
"""Fields of `config.yaml` that change nothing here: the mean is always the utterance's."""
VOICED_ABOVE = 0.5
"""The released decoder repeats the 0 and 1 of the voicing that it was given."""
UNSAID = ("encoder.dtype", "decoder.dtype", "quantizer.estimator", "quantizer.dropout")


def read_config(hub: Hub) -> PitchCodecConfig:
    """Our config of the fields of `config.yaml`."""
    fields = HubConfig("f0_vqvae", hub)
    fields.read |= {*PARTS, *SETTINGS}
    features = str(fields.get("features", "norm_f0,vuv"))
    speakers = fields.flag("speaker_norm", False)
    known = features.removeprefix("log_").removeprefix("norm_") in ("f0,vuv", "f0_interp,vuv")
    normed = known and (speakers or features.removeprefix("log_").startswith("norm_"))
    fields.unless(normed, "features", features, "norm_f0,vuv or norm_f0_interp,vuv (log_ may stand in front)")
    encoder, decoder = (_shape(hub, f"{name}_params") for name in ("encoder", "decoder"))
    book = HubConfig("vq_params", hub.get("vq_params") or {}, FIXED)
    book.read |= OF_TRAINING
    width = book.number("emb_width", 128)
    codebook = book.make(CodebookConfig, size=book.number("l_bins", 64), width=width, learning="gradient")
    return fields.make(
        PitchCodecConfig,
        features=PitchFeaturesConfig(
            scale="log" if features.startswith("log_") else "hz",
            spread=fields.number("spread", 1.0),
            interpolated="interp" in features,
        ),
        encoder=TrackEncoderConfig(**{name: encoder[name] for name in encoder if name != "backwards"}),
        decoder=TrackDecoderConfig(**decoder),
        quantizer=ResidualVQConfig(width=width, books=1, codebook=codebook),
        voiced_above=fields.number("voiced_above", VOICED_ABOVE),
    )


def write_config(config: PitchCodecConfig) -> dict[str, Any]:
    """The same fields; raises `UserError` for a config that they can't say."""
    features, book = config.features, config.quantizer.codebook
    log, interpolated = ("log_" if features.scale == "log" else ""), ("_interp" if features.interpolated else "")
    hub = {
        "features": f"{log}norm_f0{interpolated},vuv",
        "spread": features.spread,
        "voiced_above": config.voiced_above,
        "encoder_params": _written(config.encoder),
        "decoder_params": {**_written(config.decoder), "reverse_decoder_dilation": config.decoder.backwards},
        "vq_params": {"l_bins": book.size, "emb_width": book.width, "mu": book.decay, "levels": 1},
    }
    require_said("f0_vqvae", config, read_config(hub), (*UNSAID, "quantizer.codebook.(decay|epsilon|revive)"))
    return hub


def table(config: PitchCodecConfig, spelling: str = "original") -> Table:
    """The names of the released checkpoint."""
    encoder, decoder, stages = f"encoder.{LEVEL}", f"decoder.{LEVEL}", len(config.encoder.strides)
    backs = len(config.decoder.strides)
    rules = [*_conv(f"{encoder}.{stages}", "encoder/out"), *_conv(f"{decoder}.0", "decoder/into")]
    for place in range(stages):
        rules += _conv(f"{encoder}.{place}.0", f"encoder/down_{place}")
        rules += _residual(config.encoder, f"{encoder}.{place}.1", f"encoder/residual_{place}")
    for place in range(backs):
        rules += _residual(config.decoder, f"{decoder}.{place + 1}.0", f"decoder/residual_{place}")
        rules += weights(f"{decoder}.{place + 1}.1", f"decoder/up_{place}", Conv(transposed=True), SAME)
    rules += _conv("decoder.out", "decoder/out")
    return Table(rules=(*rules, rule("vq.level_blocks.{i}.k", "quantizer/codebooks/entries")))


def boxed_params(config: PitchCodecConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    track = Frames(jnp.zeros((1, config.hop, 2)), jnp.ones((1, config.hop), bool))
    return jax.eval_shape(config.make().init, jax.random.key(0), track)["params"]


def abstract_params(config: PitchCodecConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


def _shape(hub: Hub, name: str) -> dict[str, Any]:
    """Fields of one side."""
    fields = HubConfig(name, hub.get(name) or {}, FIXED)
    fields.read |= OF_TRAINING
    strides = _strides(fields)
    backwards = fields.flag("reverse_decoder_dilation", False)
    shape = fields.make(
        TrackShape,
        channels=fields.number("input_emb_width", 2),
        width=fields.number("output_emb_width", 128),
        strides=strides,
        hidden=fields.number("width", 32),
        depth=fields.number("depth", 4),
        growth=fields.number("dilation_growth_rate", 1),
        cycle=fields.get("dilation_cycle"),
        inner=fields.number("m_conv", 1.0),
        scaled=fields.flag("res_scale", False),
    )
    found = {field: getattr(shape, field) for field in shape.to_json() if field != "type"}
    return found | ({"backwards": backwards} if name.startswith("decoder") else {})


def _strides(fields: HubConfig) -> tuple[int, ...]:
    """`strides_t` says them, `downs_t` how often each comes; either may be a number or a list for the one level."""
    downs, strides = fields.get("downs_t", [4]), fields.get("strides_t", [2])
    one_level = all(isinstance(value, list) and len(value) == 1 for value in (downs, strides))
    fields.unless(one_level, "downs_t, strides_t", (downs, strides), "lists of one entry, for one level")
    if not one_level:
        return (2,)
    pairs = zip(*(one if isinstance(one, list) else [one] for one in (strides[0], downs[0])), strict=True)
    return tuple(stride for stride, times in pairs for _ in range(times))


def _written(shape: TrackShape) -> dict[str, Any]:
    return {
        "input_emb_width": shape.channels,
        "output_emb_width": shape.width,
        "levels": 1,
        "downs_t": [[1] * len(shape.strides)],
        "strides_t": [list(shape.strides)],
        "width": shape.hidden,
        "depth": shape.depth,
        "m_conv": shape.inner,
        "dilation_growth_rate": shape.growth,
        "dilation_cycle": shape.cycle,
        "res_scale": shape.scaled,
    }


def _conv(source: str, target: str) -> tuple[Rule, ...]:
    return weights(source, target, Conv(), SAME)


def _residual(shape: TrackShape, source: str, target: str) -> list[Rule]:
    """The residual convolutions of one stride."""
    rules: list[Rule] = []
    for place in range(shape.depth):
        rules += _conv(f"{source}.model.{place}.model.1", f"{target}/wide_{place}")
        rules += _conv(f"{source}.model.{place}.model.3", f"{target}/plain_{place}")
    return rules


F0_VQVAE = Family(
    name="f0_vqvae",
    config_type=PitchCodecConfig,
    spellings=("original",),
    matches=lambda hub: "model_type" not in hub and hub.keys() >= PARTS,
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
