"""GSLM, the tiny twin, on recorded speech: 91 minutes of Dutch game dialogue in two voices.

Source     Lakhotia et al. 2021; recordings: Fish Fillets NG, GPL-2
Command    python experiments/fetch/real_speech.py data/real_speech --sets fillets-nl
           python -m slm_jax train configs/speech/gslm_dutch.py --workdir runs/gslm_dutch
           python -m slm_jax evaluate runs/gslm_dutch
Hardware   two CPU cores
"""

from slm_jax.data.corpus import ManifestConfig
from slm_jax.systems.speech import gslm
from slm_jax.training.loop import TrainConfig

base = gslm.tiny(corpus=ManifestConfig(path="data/real_speech/fillets-nl/manifest.jsonl", min_s=1.0, max_s=15.0))
hubert, lm, vocoder = (base.stage(name) for name in ("hubert", "lm", "vocoder"))
longer = {
    "hubert": hubert.replace(train=TrainConfig(steps=800)),
    "lm": lm.replace(train=TrainConfig(steps=300)),
    "vocoder": vocoder.replace(model=vocoder.model.replace(speakers=64), train=TrainConfig(steps=1000)),
}
config = base.replace(name="gslm_dutch", stages=tuple(longer.get(stage.name, stage) for stage in base.stages))
