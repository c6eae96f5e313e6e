"""A tokenizer that costs little: 100 units of MFCC, on a quarter of an hour of the world.

python -m slm_jax train experiments/data_at_scale/units.py --workdir runs/units
"""

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.data.corpus import WorldConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.stages import RunConfig

config = RunConfig(
    name="units",
    corpus=WorldConfig(hours=0.25, speakers=8),
    stages=(FrameUnitsConfig(name="units", features=MFCCFeaturesConfig(), kmeans=KMeansConfig(clusters=100)),),
)
