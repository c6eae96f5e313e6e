"""Qwen (Bai et al. 2023), and Qwen-Audio (Chu et al. 2023), which hears through an encoder of Whisper's form.

Spelling "original": the names of the released code. Query, key and value are one map with a bias; of the two maps of
the feed-forward block `w2` is the gate. What that code does beyond `seq_length` positions (another rotary base, scaled
queries) is not here: longer rows are refused.
"""

from typing import Any

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.ends import EndsConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.audio.mel import whisper_log_mel
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop import decoder_shapes, speech_aware_shapes
from slm_jax.interop.decoder_shapes import BLOCKS, plain
from slm_jax.interop.family import Family
from slm_jax.interop.family_whisper import encoder_rules
from slm_jax.interop.hub_config import Hub, HubConfig, require_said
from slm_jax.interop.speech_aware_shapes import plainest, unsaid
from slm_jax.interop.table import Rule, Table, below, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Dense, Fused
from slm_jax.sequence_models.decoder_config import DecoderConfig

NAME, SPEAKING = "qwen", "qwen_audio"
AUDIO_START = 155163
"""Id of `<audio>`, in the place of which the vector of a clip's begin stands."""
FIXED: dict[str, tuple] = {
    "no_bias": (True,),
    "rotary_pct": (1.0,),
    "scale_attn_weights": (True,),
    "tie_word_embeddings": (False,),
    "onnx_safe": (),
}
ANY_VALUE = (
    # beyond seq_length; the dtype and the kernels of a run; where the code of the model lies
    *("use_dynamic_ntk", "use_logn_attn", "max_position_embeddings", "bf16", "fp16", "fp32", "use_flash_attn"),
    *("use_cache_quantization", "use_cache_kernel", "softmax_in_fp32", "tokenizer_type", "auto_map"),
)
"""Fields that change no number within `seq_length` positions."""


def read_config(hub: Hub) -> DecoderConfig:
    """Our config of a `config.json` of Qwen."""
    fields = HubConfig(NAME, hub, FIXED)
    width, heads = fields.number("hidden_size", 4096), fields.number("num_attention_heads", 32)
    channels = fields.number("kv_channels", 128)
    both = fields.number("intermediate_size", 22016)
    fields.unless(both % 2 == 0, "intermediate_size", both, "holds the widths of both maps, so must be even")
    fields.read |= set(ANY_VALUE)
    return fields.make(
        DecoderConfig,
        vocabulary=fields.number("vocab_size", 151936),
        layers=fields.number("num_hidden_layers", 32),
        width=width,
        heads=heads,
        head_width=None if channels * heads == width else channels,
        hidden=both // 2,
        norm="rms",
        norm_epsilon=fields.number("layer_norm_epsilon", 1e-6),
        activation="silu",
        gated=True,
        out_bias=False,
        mlp_bias=False,
        positions="rope",
        max_positions=fields.number("seq_length", 8192),
        rope_base=float(fields.number("rotary_emb_base", 10_000.0)),
        tied_head=False,
        dropout=fields.number("emb_dropout_prob", 0.0),
        attention_dropout=fields.number("attn_dropout_prob", 0.0),
        init_scale=fields.number("initializer_range", 0.02),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    hub = {
        "model_type": NAME,
        "architectures": ["QWenLMHeadModel"],
        "vocab_size": config.vocabulary,
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "kv_channels": config.channels,
        "intermediate_size": 2 * config.hidden,
        "layer_norm_epsilon": config.norm_epsilon,
        **({} if config.max_positions is None else {"seq_length": config.max_positions}),
        "rotary_emb_base": config.rope_base,
        "rotary_pct": 1.0,
        "emb_dropout_prob": config.dropout,
        "attn_dropout_prob": config.attention_dropout,
        "initializer_range": config.init_scale,
        "no_bias": True,
        "tie_word_embeddings": False,
    }
    lost = ("activation_dropout", *(["max_positions"] if config.max_positions is None else []))
    require_said(NAME, plain(config), plain(read_config(hub)), lost)
    return hub


def table(config: DecoderConfig, spelling: str = "original") -> Table:
    """The names of Qwen."""
    at, heads = "transformer.h.{i}", tuple(f"{BLOCKS}/attention/{name}" for name in ("query", "key", "value"))
    mlp = {"w1": "up", "w2": "gate", "c_proj": "down"}
    return Table(
        rules=(
            rule("transformer.wte.weight", "tokens/embedding"),
            *norm(f"{at}.ln_1", f"{BLOCKS}/attention_norm", bias=False),
            Rule((f"{at}.attn.c_attn.weight",), tuple(f"{name}/kernel" for name in heads), Fused(Dense())),
            Rule((f"{at}.attn.c_attn.bias",), tuple(f"{name}/bias" for name in heads), Fused(FLAT)),
            *weights(f"{at}.attn.c_proj", f"{BLOCKS}/attention/out", Dense(2)),
            *norm(f"{at}.ln_2", f"{BLOCKS}/mlp_norm", bias=False),
            *(
                one
                for name, ours in mlp.items()
                for one in weights(f"{at}.mlp.{name}", f"{BLOCKS}/mlp/{ours}", Dense())
            ),
            *norm("transformer.ln_f", "final_norm", bias=False),
            rule("lm_head.weight", "head_kernel", Dense()),
        ),
        ignored=(r"transformer\.rotary_emb\.inv_freq",),
    )


def read_audio_config(hub: Hub) -> SpeechAwareLMConfig:
    """Our config of a `config.json` of Qwen-Audio: that of its language model with `audio` in it."""
    lm = read_config({name: value for name, value in hub.items() if name not in ("audio", "preprocessor_config")})
    fields = HubConfig(f"{SPEAKING}, audio", hub["audio"], {"avg_pool": (True,), "add_audio_bos_eos_token": (True,)})
    width, target = fields.number("n_state", 1280), fields.number("output_dim", lm.width)
    fields.unless(target == lm.width, "output_dim", target, f"must be hidden_size, {lm.width}")
    speech_id = fields.number("audio_start_id", AUDIO_START)
    encoder = fields.make(
        WhisperEncoderConfig,
        mel=whisper_log_mel(fields.number("n_mels", 80)),
        layers=fields.number("n_layer", 32),
        width=width,
        heads=fields.number("n_head", 20),
        hidden=4 * width,
        max_frames=fields.number("n_ctx", 1500),
        trim=True,
        mel_frames="whole",
        final_norm=False,
    )
    adapter = ChainConfig(parts=(PoolAdapterConfig(width=target), EndsConfig(width=target)))
    return SpeechAwareLMConfig(encoders=(encoder,), adapter=adapter, lm=lm, speech_id=speech_id)


def write_audio_config(config: SpeechAwareLMConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    encoder, lm = config.encoder, config.lm
    said = isinstance(encoder, WhisperEncoderConfig) and isinstance(lm, DecoderConfig)
    audio = _written_encoder(encoder) | {"output_dim": lm.width} if said else {}
    start = AUDIO_START if config.speech_id is None else config.speech_id
    hub = {**(write_config(lm) if said else {}), "audio": {**audio, "audio_start_id": start}}
    require_said(SPEAKING, plainest(config), plainest(read_audio_config(hub)), unsaid(config))
    return hub


def _written_encoder(encoder: WhisperEncoderConfig) -> dict[str, Any]:
    return {
        "n_mels": encoder.mel.mels,
        "n_ctx": encoder.max_frames,
        "n_state": encoder.width,
        "n_head": encoder.heads,
        "n_layer": encoder.layers,
        "avg_pool": True,
        "add_audio_bos_eos_token": True,
    }


def audio_table(config: SpeechAwareLMConfig, spelling: str = "original") -> Table:
    """The names of Qwen-Audio: those of its language model, and the encoder's in the spelling of openai/whisper."""
    lm, audio = table(config.lm), "transformer.audio"
    return Table(
        rules=(
            *encoder_rules(audio, "encoder", "openai"),
            *norm(f"{audio}.ln_post", "adapter/parts_0/norm"),
            *weights(f"{audio}.proj", "adapter/parts_0/map", Dense(), SAME),
            rule(f"{audio}.audio_bos_eos_token.weight", "adapter/parts_1/vectors/embedding"),
            *below(lm.rules, "", "lm/"),
        ),
        ignored=lm.ignored,
    )


QWEN = Family(
    name=NAME,
    config_type=DecoderConfig,
    spellings=("original",),
    matches=lambda hub: hub.get("model_type") == NAME and "audio" not in hub,
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=decoder_shapes.abstract_params,
    boxed=decoder_shapes.boxed_params,
)
QWEN_AUDIO = Family(
    name=SPEAKING,
    config_type=SpeechAwareLMConfig,
    spellings=("original",),
    matches=lambda hub: hub.get("model_type") == NAME and "audio" in hub,
    read_config=read_audio_config,
    write_config=write_audio_config,
    table=audio_table,
    abstract=speech_aware_shapes.abstract_params,
    boxed=speech_aware_shapes.boxed_params,
)
