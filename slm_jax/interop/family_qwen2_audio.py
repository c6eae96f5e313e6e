"""Qwen2-Audio (Chu et al. 2024): an encoder of Whisper's form, means of two frames, a linear map, Qwen2.

Spelling "transformers": the names in the files of `Qwen2AudioForConditionalGeneration`; those that the class itself has
in memory, with `model.` before them, are read too. The norm behind the encoder's layers comes behind the means, and
lies with the adapter in our tree.
"""

from typing import Any

from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.audio.mel import whisper_log_mel
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop import family_llama
from slm_jax.interop.family import Family
from slm_jax.interop.family_whisper import encoder_rules
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.speech_aware_shapes import (
    abstract_params,
    boxed_params,
    check_features,
    plainest,
    unsaid,
    written_features,
)
from slm_jax.interop.table import Table, below, norm, weights
from slm_jax.interop.transforms import SAME, Dense
from slm_jax.sequence_models.decoder_config import DecoderConfig

NAME = "qwen2_audio"
POOL = 2
AUDIO_TOKEN = 151646
"""Id of `<|AUDIO|>`, which stands for each vector of a clip in the rows of transformers."""
RATES = ("dropout", "attention_dropout", "activation_dropout")
LM = "language_model."


def read_config(hub: Hub) -> SpeechAwareLMConfig:
    """Our config of a `config.json`."""
    fields = HubConfig(NAME, hub)
    encoder = _read_encoder(fields.get("audio_config", {}))
    lm = family_llama.read_qwen2(fields.get("text_config", {}))
    check_features(fields, encoder)
    fields.read.add("vocab_size")  # of the language model, written down twice by old files
    return fields.make(
        SpeechAwareLMConfig,
        encoders=(encoder,),
        adapter=PoolAdapterConfig(width=lm.width, pool=POOL),
        lm=lm,
        speech_id=fields.number("audio_token_index", AUDIO_TOKEN),
    )


def _read_encoder(hub: Hub) -> WhisperEncoderConfig:
    fields = HubConfig(f"{NAME}, audio_config", hub, {"scale_embedding": (False,), "activation_function": ("gelu",)})
    fields.read |= {"initializer_range", "init_std", "num_hidden_layers"}  # of training; layers counted twice
    rates: dict[str, Any] = {name: fields.number(name, 0.0) for name in RATES}
    return fields.make(
        WhisperEncoderConfig,
        mel=whisper_log_mel(fields.number("num_mel_bins", 128)),
        layers=fields.number("encoder_layers", 32),
        width=fields.number("d_model", 1280),
        heads=fields.number("encoder_attention_heads", 20),
        hidden=fields.number("encoder_ffn_dim", 5120),
        max_frames=fields.number("max_source_positions", 1500),
        layer_drop=fields.number("encoder_layerdrop", 0.0),
        trim=True,
        final_norm=False,
        **rates,
    )


def write_config(config: SpeechAwareLMConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    encoder, lm = config.encoders[0], config.lm
    said = isinstance(encoder, WhisperEncoderConfig) and isinstance(lm, DecoderConfig)
    hub: dict[str, Any] = {
        "model_type": NAME,
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "audio_token_index": AUDIO_TOKEN if config.speech_id is None else config.speech_id,
        "audio_config": _written_encoder(encoder) if said else {},
        "text_config": family_llama.write_qwen2(lm) if said else {},
        "preprocessor_config": written_features(encoder) if said else {},
    }
    require_said(NAME, plainest(config), plainest(read_config(hub)), unsaid(config))
    return hub


def _written_encoder(encoder: WhisperEncoderConfig) -> dict[str, Any]:
    return {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": encoder.mel.mels,
        "encoder_layers": encoder.layers,
        "d_model": encoder.width,
        "encoder_attention_heads": encoder.heads,
        "encoder_ffn_dim": encoder.hidden,
        "encoder_layerdrop": encoder.layer_drop,
        "max_source_positions": encoder.max_frames,
        "activation_function": "gelu",
        **{name: getattr(encoder, name) for name in RATES},
    }


def table(config: SpeechAwareLMConfig, spelling: str = "transformers") -> Table:
    """The names of the files."""
    lm = family_llama.table(config.lm)
    return Table(
        rules=(
            *encoder_rules("audio_tower", "encoder", "transformers"),
            *norm("audio_tower.layer_norm", "adapter/norm"),
            *weights("multi_modal_projector.linear", "adapter/map", Dense(), SAME),
            *below(lm.rules, LM, "lm/"),
        ),
        ignored=tuple(rf"language_model\.{pattern}" for pattern in lm.ignored),
        tied={f"{LM}{copy}": f"{LM}{first}" for copy, first in lm.tied.items()},
        renames=(
            (r"^model\.(audio_tower|multi_modal_projector)\.", r"\1."),
            (r"^model\.language_model\.", f"{LM}model."),
            (r"^lm_head\.", f"{LM}lm_head."),
        ),
    )


QWEN2_AUDIO = Family(
    name=NAME,
    config_type=SpeechAwareLMConfig,
    spellings=("transformers",),
    matches=is_type(NAME),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
    side_files=("preprocessor_config",),
)
