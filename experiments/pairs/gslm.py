"""GSLM's tiny stages on the corpus and with the voices of pGSLM's, so that both answer the same pairs.

python -m slm_jax train experiments/pairs/gslm.py --workdir runs/pairs_gslm
python -m slm_jax evaluate runs/pairs_gslm --judges language_model pairs --utterances 100
"""

from slm_jax.systems.speech import gslm, pgslm

base = pgslm.tiny()
own = gslm.tiny(base.corpus)
lm = own.stage("lm").replace(train=base.stage("lm").train)
changed = {"lm": lm, "vocoder": base.stage("vocoder")}
config = own.replace(name="pairs_gslm", stages=tuple(changed.get(stage.name, stage) for stage in own.stages))
