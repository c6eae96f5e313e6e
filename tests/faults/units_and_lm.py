"""Two stages of GSLM, the k-means units of MFCC and a unit language model: the least that the command line trains."""

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig
from slm_jax.training.stages import RunConfig

config = RunConfig(
    name="units_and_lm",
    corpus=WorldConfig(hours=0.02, processes=1, dev_share=0.2, test_share=0.2),
    stages=(
        FrameUnitsConfig(
            name="units",
            features=MFCCFeaturesConfig(),
            kmeans=KMeansConfig(clusters=16, iterations=5, start_rows=500),
        ),
        UnitLMConfig(
            name="lm",
            units="units",
            model=DecoderConfig(vocabulary=24, layers=1, width=32, heads=2, hidden=64, positions="rope", dropout=0.1),
            row_length=64,
            train=TrainConfig(steps=200, log_every=5, checkpoint_every_steps=20, ema_decay=0.9),
            batches=PipelineConfig(batch=4),
        ),
    ),
)
