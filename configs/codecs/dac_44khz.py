"""DAC at 44.1 kHz, nine books, 7.8 kb/s.

Source     Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN"; `conf/final/44khz.yml`
Command    python -m slm_jax train configs/codecs/dac_44khz.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   not said; planned for TPUs in experiments/tpu_plans, not yet run at this size
Differs    recordings stay as loud as they are (there: all at -16 dB, phases shifted at random); frames of the spectra
           lie an eighth of a window later; the scores of each judge count among its features
"""

from slm_jax.assemblies.codec_presets import dac
from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.systems.recipes.rvqgan import rvqgan

config = CodecRunConfig(
    name="dac_44khz",
    corpus=ManifestConfig(path="data/speech/manifest.jsonl", rate_hz=44_100),
    stages=(rvqgan("codec", dac(44_100)),),
)
