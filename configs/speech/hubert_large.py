"""HuBERT large, 316 M parameters, on the units of a HuBERT base (the released model of 60,000 hours).

Source     Hsu et al. 2021, section IV; fairseq's hubert_large_librivox recipe
Command    python -m slm_jax train configs/speech/hubert_large.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   the paper: 128 GPUs for 400,000 steps; planned for TPUs in experiments/tpu_plans, not yet run at this size
Differs    rows are crops of 250,000 samples, 512 in a batch: about the paper's two hours of speech a step
"""

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.data.corpus import ManifestConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl_presets import hubert_base, hubert_large
from slm_jax.systems.recipes.hubert_units import PUBLISHED_KMEANS, published_hubert, published_units
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.stages import RunConfig

large = published_hubert("hubert_large", "units_2", 500, hubert_large().replace(dropout=0.0, attention_dropout=0.0))
config = RunConfig(
    name="hubert_large",
    corpus=ManifestConfig(path="data/speech/manifest.jsonl"),
    stages=(
        FrameUnitsConfig(name="mfcc", features=MFCCFeaturesConfig(), kmeans=PUBLISHED_KMEANS.replace(clusters=100)),
        published_hubert("hubert_1", "mfcc", 100, hubert_base()),
        published_units("units_1", "hubert_1", layer=6, clusters=500),
        published_hubert("hubert_2", "units_1", 500, hubert_base()),
        published_units("units_2", "hubert_2", layer=9, clusters=500),
        large.replace(
            batches=PipelineConfig(batch=512),
            optimizer=large.optimizer.replace(learning_rate=1.5e-3, clip=1.0),
        ),
    ),
)
