"""All families, and which of them a `config.json` belongs to."""

from collections.abc import Mapping
from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, nearest
from slm_jax.interop.family import Family
from slm_jax.interop.family_bark import BARK
from slm_jax.interop.family_beats import BEATS
from slm_jax.interop.family_dac import DAC, SNAC
from slm_jax.interop.family_encodec import ENCODEC
from slm_jax.interop.family_f0_vqvae import F0_VQVAE
from slm_jax.interop.family_ge2e import GE2E
from slm_jax.interop.family_gpt2 import GPT2
from slm_jax.interop.family_hifigan import HIFIGAN, SPEECHT5_HIFIGAN
from slm_jax.interop.family_linear_quantizer import LINEAR_QUANTIZER
from slm_jax.interop.family_llama import LLAMA, MISTRAL, QWEN2
from slm_jax.interop.family_mimi import MIMI
from slm_jax.interop.family_moshi import MOSHI
from slm_jax.interop.family_musicgen import MUSICGEN
from slm_jax.interop.family_opt import OPT
from slm_jax.interop.family_parakeet import PARAKEET, PARAKEET_CTC
from slm_jax.interop.family_pgslm import PGSLM
from slm_jax.interop.family_qformer import QFORMER
from slm_jax.interop.family_qwen import QWEN, QWEN_AUDIO
from slm_jax.interop.family_qwen2_audio import QWEN2_AUDIO
from slm_jax.interop.family_ssl import HUBERT, WAV2VEC2, WAVLM
from slm_jax.interop.family_ssl_classifier import SSL_CLASSIFIERS
from slm_jax.interop.family_t5 import MT5, T5
from slm_jax.interop.family_t5_stack import T5_STACK
from slm_jax.interop.family_unit_hifigan import CODE_HIFIGAN, UNIT_HIFIGAN
from slm_jax.interop.family_w2v_bert import W2V_BERT
from slm_jax.interop.family_whisper import WHISPER

DECODERS = (GPT2, OPT, LLAMA, QWEN2, MISTRAL, QWEN, T5_STACK, BARK)
OF_STREAMS = (MUSICGEN, PGSLM, MOSHI)
ENCODER_DECODERS = (T5, MT5)
ENCODERS = (*SSL_CLASSIFIERS, HUBERT, WAV2VEC2, WAVLM, W2V_BERT, PARAKEET_CTC, PARAKEET, BEATS, GE2E)
ADAPTERS = (QFORMER,)
VOCODERS = (HIFIGAN, SPEECHT5_HIFIGAN, UNIT_HIFIGAN, CODE_HIFIGAN)
CODECS = (ENCODEC, MIMI, DAC, SNAC, F0_VQVAE, LINEAR_QUANTIZER)
LISTENERS = (WHISPER, QWEN2_AUDIO, QWEN_AUDIO)
ALL = (*DECODERS, *OF_STREAMS, *ENCODER_DECODERS, *ENCODERS, *ADAPTERS, *VOCODERS, *CODECS, *LISTENERS)
FAMILIES: dict[str, Family] = {family.name: family for family in ALL}


def family_named(name: str) -> Family:
    """The family called `name`; raises `UserError` for an unknown one."""
    if name not in FAMILIES:
        raise UserError(f"family is {name!r}: must be one of {', '.join(FAMILIES)}{nearest(name, FAMILIES)}")
    return FAMILIES[name]


def family_of(hub_config: Mapping[str, Any]) -> Family:
    """The family of a `config.json`; raises `UserError` naming the architecture when we know none."""
    for family in FAMILIES.values():
        if family.matches(hub_config):
            return family
    kind = hub_config.get("model_type", "(absent)")
    raise UserError(f"config.json: model_type is {kind!r}: no family of slm_jax reads it ({', '.join(FAMILIES)})")


def family_for(config: Config) -> Family:
    """The first family that can say `config`; raises `UserError` with each one's reason when none can."""
    reasons = []
    for family in FAMILIES.values():
        if not isinstance(config, family.config_type):
            continue
        try:
            family.write_config(config)
        except UserError as error:
            reasons.append(f"{family.name}: {error}")
        else:
            return family
    raise UserError(f"no family can say this {type(config).__name__}" + "".join(f"\n  {reason}" for reason in reasons))
