"""AudioLM on two cores: units of a real encoder, a codec of its own, and three small models in a row.

    python experiments/fetch/real_weights.py weights --models whisper-base ge2e-speaker
    python -m slm_jax train experiments/audiolm/config.py --workdir runs/audiolm
    python -m slm_jax evaluate runs/audiolm
    python -m slm_jax generate runs/audiolm --prompts a.wav --decoding.mode acoustic --out out

Units are clusters of a layer of Whisper-base's encoder, which stands where the paper has w2v-BERT; units of the tiny
twin's own HuBERT (`audiolm:tiny`) say less of the words. Everything else is the tiny twin's, over an hour and a half of
four voices of the synthetic world. `SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set.
"""

import os
from pathlib import Path

from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import WorldConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.judges.cascade import CascadeJudge
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.pairs import PairsJudge
from slm_jax.judges.voices import VoicesJudge
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.systems.recipes.small_codec import small_codec
from slm_jax.systems.speech import audiolm
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfPartConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
CLUSTERS = 200
whisper = PartSource(
    path="frozen/encoder",
    source=str(WEIGHTS / "whisper-base"),
    take="encoder",
    expect=WhisperEncoderConfig(trim=True),
)
units = FrameUnitsConfig(
    name="units",
    features=LayerOfPartConfig(part=whisper, layer=4),
    kmeans=KMeansConfig(clusters=CLUSTERS, iterations=30),
    postprocess=PostprocessConfig(normalise="standardise"),
)
codec, codes = small_codec()
config = audiolm.AudioLMConfig(
    name="audiolm",
    corpus=WorldConfig(hours=1.5, speakers=4),
    stages=(codec, units, codes, *audiolm.small_models(CLUSTERS)),
    passes=audiolm.SMALL_PASSES,
    prompt_s=1.2,
    judges=(
        CascadeJudge(whisper=str(WEIGHTS / "whisper-base")),
        VoicesJudge(speaker=str(WEIGHTS / "ge2e-speaker")),
        PairsJudge(),
        LossesJudge(),
    ),
)
