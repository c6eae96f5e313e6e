"""UniverSLU's tiny twin: a Whisper of 1.5 M parameters learns to transcribe, then six tasks, asked in both forms.

    python -m slm_jax train experiments/universlu/config.py --workdir runs/universlu
    python -m slm_jax evaluate runs/universlu --utterances 60

Nobody who is heard in the test split is heard in training.
"""

from slm_jax.systems.speech_aware import universlu

config = universlu.config("tiny")
config = config.replace(
    name="universlu_world",
    corpus=config.corpus.replace(speakers=12, split_by="speaker", test_share=0.2, dev_share=0.1),
)
