"""TWIST's tiny stages on the same corpus: GSLM's, with a language model that begins as one of written stories.

    python experiments/fetch/real_weights.py weights --models stories15m
    python -m slm_jax train experiments/pairs/twist.py --workdir runs/pairs_twist
    python -m slm_jax evaluate runs/pairs_twist --judges language_model pairs --utterances 100

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set.
"""

import os
from pathlib import Path

from slm_jax.systems.speech import pgslm, twist

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
base = pgslm.tiny()
own = twist.tiny(str(WEIGHTS / "stories15m"), base.corpus)
lm = own.stage("lm").replace(train=base.stage("lm").train)
changed = {"lm": lm, "vocoder": base.stage("vocoder")}
config = own.replace(name="pairs_twist", stages=tuple(changed.get(stage.name, stage) for stage in own.stages))
