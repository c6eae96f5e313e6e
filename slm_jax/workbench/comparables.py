"""Which `Comparable` a config belongs to."""

from slm_jax.assemblies.whisper import WhisperConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError
from slm_jax.decoders.mel_vocoder import MelVocoderConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.w2v_bert import W2VBERTConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.workbench.comparable import Comparable
from slm_jax.workbench.comparable_decoder import DECODER
from slm_jax.workbench.comparable_ssl import SSL_ENCODER
from slm_jax.workbench.comparable_streams import MULTI_STREAM, TEMPORAL_DEPTH
from slm_jax.workbench.comparable_vocoder import MEL_VOCODER, UNIT_VOCODER
from slm_jax.workbench.comparable_w2v_bert import W2V_BERT
from slm_jax.workbench.comparable_whisper import WHISPER

COMPARABLES: dict[type[Config], Comparable] = {
    DecoderConfig: DECODER,
    MultiStreamConfig: MULTI_STREAM,
    TemporalDepthConfig: TEMPORAL_DEPTH,
    SSLEncoderConfig: SSL_ENCODER,
    W2VBERTConfig: W2V_BERT,
    MelVocoderConfig: MEL_VOCODER,
    UnitVocoderConfig: UNIT_VOCODER,
    WhisperConfig: WHISPER,
}
"""One line for each kind of model."""


def comparable_of(config: Config) -> Comparable:
    """How a model of this config is compared; raises `UserError` for a kind that nobody has described."""
    kind = type(config)
    if kind not in COMPARABLES:
        known = ", ".join(sorted(each.__name__ for each in COMPARABLES))
        raise UserError(f"a {kind.__name__} has no description for `parity`: {known} have one")
    return COMPARABLES[kind]
