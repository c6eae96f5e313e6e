"""SNAC at 24 kHz, three books at 12, 23 and 47 Hz, 0.98 kb/s: the codec of Mini-Omni.

Source     Siuzdak et al. 2024, "SNAC: Multi-Scale Neural Audio Codec"
Command    python -m slm_jax train configs/codecs/snac_24khz.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   not said; planned for TPUs in experiments/tpu_plans, not yet run at this size
Differs    the repository has no training. That the recipe is DAC's, whose successor it is, all of it, is an
           interpretation, and so are segments of a second instead of .38 s: four frames of tokens were few.
           The decoder's noise is silent while it is trained
"""

from slm_jax.assemblies.codec_presets import snac
from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.systems.recipes.rvqgan import rvqgan

config = CodecRunConfig(
    name="snac_24khz",
    corpus=ManifestConfig(path="data/speech/manifest.jsonl", rate_hz=24_000),
    stages=(rvqgan("codec", snac(24_000)).replace(segment_s=1.024),),
)
