"""Who teaches a codec's first book: a layer of a speech encoder that stays as it is (Défossez et al. 2024, 3.3.3)."""

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.assemblies.phonetic_tokenizer import RATE_HZ, EncoderFeaturesConfig
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.objectives.taught import Teacher
from slm_jax.training.feature_passes import speech_encoder
from slm_jax.training.pre.frame_units import LayerOfPartConfig

PATH = "frozen/teacher"


class CodecTeacherConfig(Config):
    """`features`: the layer, of an encoder at `frozen/teacher`. Mimi: the last of WavLM large, `span` 2.

    For each latent of the codec the mean of as many frames of the teacher as lie in `span` latents is wanted, from the
    latent's own time on. `weight` in the codec's loss.
    """

    features: LayerOfPartConfig
    span: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        require(self.features.part.path == PATH, "features.part.path", self.features.part.path, f"must be {PATH}")
        require(self.span > 0, "span", self.span, "at least one latent")
        require(self.weight > 0, "weight", self.weight, "above 0")

    def make(self, encoder: Config, codec: CodecConfig, stage: str) -> Teacher:
        """The teacher, once its encoder's config is known; raises `UserError` where frames and latents do not fit."""
        layer = EncoderFeaturesConfig(encoder=speech_encoder(encoder, stage), layer=self.features.layer)
        ratio, rest = divmod(codec.latent_hop * RATE_HZ, codec.rate_hz * layer.hop)
        latents, frames = codec.rate_hz / codec.latent_hop, RATE_HZ / layer.hop
        rule = f"as many or a whole part of the teacher's {frames:g} a second"
        require(ratio > 0 and not rest, "latents per second", latents, rule)
        return Teacher(layer, ratio, self.span, self.weight)
