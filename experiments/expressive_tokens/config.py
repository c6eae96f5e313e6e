"""SpiRit-LM's tokens of pitch and style, trained on synthetic voices: some minutes of one core.

    python -m slm_jax train experiments/expressive_tokens/config.py --workdir runs/expressive_tokens
    python experiments/expressive_tokens/run.py runs/expressive_tokens

Eighteen minutes of sixteen speakers of the synthetic world, who speak slowly, as usual or fast, softly, as usual or
loudly, low, as usual or high, each sentence as drawn. Speakers are dealt out to the splits: those of the test split are
never trained on. Pitch: the published shape (F0 at 200 Hz to 64 codes at 12.5 Hz, .2 M weights). Style: a small encoder
on log-mels learns the 27 manners, a second at a time; its classes are tokens, and so are 100 clusters of its features.
"""

from slm_jax.audio.pitch import PitchConfig
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.pitch_codec import PitchCodecStageConfig
from slm_jax.training.pre.pitch_codes import PitchCodesConfig
from slm_jax.training.pre.style import StyleStageConfig
from slm_jax.training.pre.style_tokens import StyleTokensConfig
from slm_jax.training.stages import RunConfig

CORPUS = WorldConfig(
    hours=0.3, speakers=16, styles=("rate", "energy", "register"), split_by="speaker", dev_share=0.1, test_share=0.25
)
ENCODER = log_mel_tiny().replace(layers=2)

config = RunConfig(
    name="expressive_tokens",
    corpus=CORPUS,
    stages=(
        PitchStageConfig(name="pitch", pitch=PitchConfig(hop_s=0.005)),
        PitchCodecStageConfig(
            name="pitch_codec",
            pitch="pitch",
            train=TrainConfig(steps=800, log_every=100),
            batches=PipelineConfig(batch=16),
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50),
        ),
        PitchCodesConfig(name="pitch_codes", codec="pitch_codec"),
        StyleStageConfig(
            name="style",
            encoder=ENCODER,
            train=TrainConfig(steps=300, log_every=50),
            batches=PipelineConfig(batch=16),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=30),
        ),
        StyleTokensConfig(name="style_classes", source="stage:style"),
        StyleTokensConfig(name="style_clusters", source="stage:style", kmeans=KMeansConfig(clusters=100)),
    ),
)
