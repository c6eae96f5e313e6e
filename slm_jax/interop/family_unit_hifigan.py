"""HiFi-GAN on units, in two families.

"unit_hifigan" is the CodeHiFiGAN of fairseq, textlesslib and the speech-resynthesis repository (Polyak et al. 2021),
which share one `config.json`; "code_hifigan" is `SeamlessM4TCodeHifiGan` of transformers (either version), alone or
with nothing but its vocoder's weights: the rest of a Seamless model is no part of it.
"""

import re
from functools import partial
from typing import Any

import jax
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.predictors import PredictorConfig
from slm_jax.decoders.unit_vocoder import TABLES, UnitVocoderConfig, initialise
from slm_jax.interop.family import Family
from slm_jax.interop.generator_shapes import RENAMES, UNSAID, generator_rules, read_generator, write_generator
from slm_jax.interop.hub_config import Hub, HubConfig, require_said
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import SAME, Conv, Dense, Rolled, Transform

SPECTROGRAM_FIELDS = ("num_mels", "n_fft", "hop_size", "win_size", "fmin", "fmax")
"""fairseq: the spectrogram that training compares; nothing of it is heard."""
OFF = {
    "embedder_params": (),
    "f0_quant_num_bin": (0,),
    "f0_stats": (),
    "f0_normalize": (False,),
    "f0_median": (False,),
    "vqvae": (False,),
}
"""fairseq: inputs that our vocoder does not have."""
OTHER_PARTS = re.compile(
    r"(t2u|speech_encoder|encoder|decoder|adaptor|max|pad|bos|eos|position|left_max|right_max|conv_depthwise)_\w+"
    r"|(vocab|hidden|char_vocab)_size|num_(adapter_layers|conv_pos_embeddings|conv_pos_embedding_groups)"
    r"|layer_norm_eps|activation_function|(attention_|activation_)?dropout|scale_embedding|add_adapter"
    r"|feature_projection_input_dim|rotary_embedding_base|tie_word_embeddings|is_encoder_decoder|vocoder_offset"
)
"""Seamless: fields of the translator, whose config its vocoder shares. `vocoder_offset` is taken off its units."""
TOKENS = {"pitch": "f0", "style": "style"}
"""Streams of tokens beside the units: our name -> fairseq's (`num_f0_tokens`, `f0_hop_size`)."""
PREDICTOR_KERNEL = 3
"""Both families pad the second convolution of the predictor as for this kernel, whatever its own is."""


def read_fairseq(hub: Hub) -> UnitVocoderConfig:
    """Our config of fairseq's `config.json`.

    A vocoder that reads F0 was trained on log F0 less a mean and over a deviation that no published `config.json`
    tells: `log_f0_mean` and `log_f0_std` must be added to it.
    """
    fields = HubConfig("unit_hifigan", hub, OFF)
    fields.read |= {*SPECTROGRAM_FIELDS, "num_speakers", "num_styles", "log_f0_mean", "log_f0_std"}
    generator = read_generator(fields, weight_norm=True)
    hop = fields.number("code_hop_size", generator.hop)
    fields.unless(hop == generator.hop, "code_hop_size", hop, f"the upsample_rates make {generator.hop} samples")
    width, pitch = fields.number("embedding_dim", 128), _flag(fields, "f0")
    speakers = fields.number("num_speakers", 200) if _flag(fields, "multispkr") else 0
    styles = fields.number("num_styles", 100) if _flag(fields, "multistyle") else 0
    tokens = _tokens(fields, hop)
    if pitch:
        for name in ("log_f0_mean", "log_f0_std"):
            fields.unless(name in hub, name, None, "f0 is on: add what its training normalised log F0 with")
    tables = {"pitch_token": tokens["pitch_tokens"], "style_token": tokens["style_tokens"], "style": styles}
    inputs = width * (1 + sum(count > 0 for count in (*tables.values(), speakers))) + pitch
    given = fields.number("model_in_dim", inputs)
    fields.unless(given == inputs, "model_in_dim", given, f"all inputs, units among them, make {inputs}")
    return fields.make(
        UnitVocoderConfig,
        units=fields.number("num_embeddings", 100),
        unit_dim=width,
        speakers=speakers,
        speaker_dim=width,
        styles=styles,
        **tokens,
        **{f"{name}_dim": width for name, count in tables.items() if count},
        pitch=pitch,
        voicing=False,
        log_f0_mean=fields.number("log_f0_mean", 0.0),
        log_f0_std=fields.number("log_f0_std", 1.0),
        generator=generator,
        durations=_predictor(fields, width),
        pitch_predictor=None,
        rate_hz=fields.number("sampling_rate", 16_000),
    )


def write_fairseq(config: UnitVocoderConfig) -> dict[str, Any]:
    """fairseq's `config.json`, without its settings of training."""
    generator, durations = _hifigan(config), config.durations
    hub: dict[str, Any] = {
        "resblock": generator.resblock,
        **write_generator(generator),
        "num_embeddings": config.units,
        "embedding_dim": config.unit_dim,
        "model_in_dim": config.unit_dim * (1 + _tables(config)) + config.pitch,
        "code_hop_size": config.hop,
        "sampling_rate": config.rate_hz,
        "f0": config.pitch,
    }
    if config.speakers:
        hub |= {"multispkr": "from_input_file", "num_speakers": config.speakers}
    if config.styles:
        hub |= {"multistyle": "from_input_file", "num_styles": config.styles}
    for kind, theirs in TOKENS.items():
        if getattr(config, f"{kind}_tokens"):
            hub[f"num_{theirs}_tokens"] = getattr(config, f"{kind}_tokens")
            hub[f"{theirs}_hop_size"] = getattr(config, f"{kind}_every") * config.hop
    if config.pitch:
        hub |= {"log_f0_mean": config.log_f0_mean, "log_f0_std": config.log_f0_std}
    if durations is not None:
        hub["dur_predictor_params"] = {
            "encoder_embed_dim": config.unit_dim,
            "var_pred_hidden_dim": durations.width or config.unit_dim,
            "var_pred_kernel_size": durations.kernel,
            "var_pred_dropout": durations.dropout,
        }
    _require_said("unit_hifigan", config, read_fairseq(hub))
    return hub


def read_seamless(hub: Hub) -> UnitVocoderConfig:
    """Our config of a `SeamlessM4TConfig` whose architecture is the vocoder."""
    fields = HubConfig("code_hifigan", hub)
    fields.read |= {name for name in hub if OTHER_PARTS.fullmatch(name)}
    kernel = fields.number("variance_predictor_kernel_size", PREDICTOR_KERNEL)
    fields.unless(kernel == PREDICTOR_KERNEL, "variance_predictor_kernel_size", kernel, "only 3 is supported")
    speakers, languages = fields.number("vocoder_num_spkrs", 200), fields.number("vocoder_num_langs", 36)
    fields.unless(speakers > 0, "vocoder_num_spkrs", speakers, "must be positive")
    fields.unless(languages > 0, "vocoder_num_langs", languages, "must be positive")
    return fields.make(
        UnitVocoderConfig,
        units=fields.number("unit_hifi_gan_vocab_size", 10_000),
        unit_dim=fields.number("unit_embed_dim", 1280),
        speakers=speakers,
        speaker_dim=fields.number("spkr_embed_dim", 256),
        languages=languages,
        language_dim=fields.number("lang_embed_dim", 256),
        pitch=False,
        generator=read_generator(fields, weight_norm=False),
        durations=PredictorConfig(kernel=kernel, dropout=fields.number("var_pred_dropout", 0.5)),
        pitch_predictor=None,
        rate_hz=fields.number("sampling_rate", 16_000),
    )


def write_seamless(config: UnitVocoderConfig) -> dict[str, Any]:
    """A `SeamlessM4TConfig` that says the vocoder; what it says of the translator are transformers' defaults."""
    durations = config.durations or PredictorConfig()
    hub = {
        "model_type": "seamless_m4t",
        "architectures": ["SeamlessM4TCodeHifiGan"],
        **write_generator(_hifigan(config)),
        "leaky_relu_slope": 0.1,
        "sampling_rate": config.rate_hz,
        "unit_hifi_gan_vocab_size": config.units,
        "unit_embed_dim": config.unit_dim,
        "vocoder_num_spkrs": config.speakers,
        "spkr_embed_dim": config.speaker_dim,
        "vocoder_num_langs": config.languages,
        "lang_embed_dim": config.language_dim,
        "variance_predictor_kernel_size": durations.kernel,
        "var_pred_dropout": durations.dropout,
    }
    _require_said("code_hifigan", config, read_seamless(hub))
    return hub


def fairseq_table(config: UnitVocoderConfig, spelling: str = "fairseq") -> Table:
    """`dict` holds the units; F0 has no weights of its own."""
    return Table(
        rules=(
            rule("dict.weight", "unit/embedding"),
            rule("f0_dict.weight", "pitch_token/embedding"),
            rule("style_dict.weight", "style_token/embedding"),
            rule("spkr.weight", "speaker/embedding"),
            rule("style.weight", "style/embedding"),
            *_predictor_rules("dur_predictor", ".0"),
            *generator_rules(_hifigan(config), spelling),
        ),
        renames=((r"^(module|generator)\.", ""), *RENAMES),
    )


def seamless_table(config: UnitVocoderConfig, spelling: str = "transformers") -> Table:
    """transformers puts the language in front of the units, ours stands last."""
    inputs: Transform = Rolled(Conv(), first=config.language_dim)
    return Table(
        rules=(
            rule("unit_embedding.weight", "unit/embedding"),
            rule("speaker_embedding.weight", "speaker/embedding"),
            rule("language_embedding.weight", "language/embedding"),
            *_predictor_rules("dur_predictor", ""),
            *generator_rules(_hifigan(config), spelling, source="hifi_gan.", first=inputs),
        ),
        renames=((r"^vocoder\.", ""), *RENAMES),
    )


def boxed_params(config: UnitVocoderConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    return jax.eval_shape(partial(initialise, config.make()), jax.random.key(0))["params"]


def abstract_params(config: UnitVocoderConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


def _tables(config: UnitVocoderConfig) -> int:
    """How many tables of fairseq's there are beside the units'."""
    return sum(bool(getattr(config, kind)) for name, kind in TABLES.items() if name != "language")


def _tokens(fields: HubConfig, hop: int) -> dict[str, int]:
    """How many tokens of pitch and style there are, and how many frames of units each lasts, as SpiRit-LM rounds it."""
    found: dict[str, int] = {}
    usual = UnitVocoderConfig()
    for kind, theirs in TOKENS.items():
        count = fields.number(f"num_{theirs}_tokens", 0)
        frames = fields.number(f"{theirs}_hop_size", getattr(usual, f"{kind}_every") * hop) / hop
        fields.unless(frames >= 0.5, f"{theirs}_hop_size", frames * hop, f"at least the {hop} samples of a unit")
        found |= {f"{kind}_tokens": count, f"{kind}_every": max(1, round(frames))}
    return found


def _predictor(fields: HubConfig, width: int) -> PredictorConfig | None:
    """The duration predictor of fairseq, which reads the unit's vector."""
    given = fields.get("dur_predictor_params", None)
    fields.unless(given is None or isinstance(given, dict), "dur_predictor_params", given, "must be a table of fields")
    if not isinstance(given, dict):
        return None
    fixed = {"encoder_embed_dim": (width,), "var_pred_kernel_size": (PREDICTOR_KERNEL,)}
    inner = HubConfig("dur_predictor_params", given, fixed)
    hidden = inner.number("var_pred_hidden_dim", width)
    return inner.make(
        PredictorConfig,
        width=None if hidden == width else hidden,
        kernel=PREDICTOR_KERNEL,
        dropout=inner.number("var_pred_dropout", 0.5),
    )


def _predictor_rules(source: str, conv: str) -> tuple[Rule, ...]:
    """`conv`: fairseq's convolutions are the first of a sequence."""
    return (
        *weights(f"{source}.conv1{conv}", "durations/conv_0", Conv(), SAME),
        *norm(f"{source}.ln1", "durations/norm_0"),
        *weights(f"{source}.conv2{conv}", "durations/conv_1", Conv(), SAME),
        *norm(f"{source}.ln2", "durations/norm_1"),
        *weights(f"{source}.proj", "durations/out", Dense(), SAME),
    )


def _flag(fields: HubConfig, name: str) -> bool:
    """A field that is false, or says in any words that it is on (`"multispkr": "from_input_file"`)."""
    return bool(fields.get(name, False))


def _hifigan(config: UnitVocoderConfig) -> HiFiGANConfig:
    if not isinstance(config.generator, HiFiGANConfig):
        raise UserError(f"generator is {type(config.generator).__name__}: PyTorch's unit vocoders have HiFi-GAN's")
    return config.generator


def _require_said(family: str, config: UnitVocoderConfig, read_back: UnitVocoderConfig) -> None:
    """Fields of inputs that are off say nothing."""
    unsaid = [*UNSAID, "durations.dtype"]
    unsaid += [f"{name}_dim" for name, kind in TABLES.items() if not getattr(config, kind)]
    unsaid += [f"{kind}_every" for kind in TOKENS if not getattr(config, f"{kind}_tokens")]
    unsaid += [] if config.pitch else ["voicing", "log_f0_mean", "log_f0_std"]
    require_said(family, config, read_back, tuple(unsaid))


UNIT_HIFIGAN = Family(
    name="unit_hifigan",
    config_type=UnitVocoderConfig,
    spellings=("fairseq",),
    matches=lambda hub: "model_type" not in hub and {"upsample_rates", "num_embeddings"} <= hub.keys(),
    read_config=read_fairseq,
    write_config=write_fairseq,
    table=fairseq_table,
    abstract=abstract_params,
    boxed=boxed_params,
)
CODE_HIFIGAN = Family(
    name="code_hifigan",
    config_type=UnitVocoderConfig,
    spellings=("transformers",),
    matches=lambda hub: any(str(name).endswith("CodeHifiGan") for name in hub.get("architectures") or ()),
    read_config=read_seamless,
    write_config=write_seamless,
    table=seamless_table,
    abstract=abstract_params,
    boxed=boxed_params,
)
