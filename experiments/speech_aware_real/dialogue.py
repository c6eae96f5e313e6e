"""Czech and Dutch of a game, recorded, into English: what has learnt to hear English goes on to two more languages.

    python experiments/fetch/real_weights.py weights --models whisper-base smollm2-135m-instruct
    python experiments/fetch/real_speech.py data/real_speech --sets fillets-cs fillets-nl
    python -m slm_jax train experiments/speech_aware_real/config.py --workdir runs/real
    python -m slm_jax train experiments/speech_aware_real/dialogue.py --workdir runs/dialogue
    python -m slm_jax evaluate runs/dialogue --utterances 100

The adapter and the LoRA of `runs/real` (or of the run that `SLM_JAX_HEARD` names) are the start; two thirds of the rows
ask for a translation and one third for what is said. `SLM_JAX_REAL_WEIGHTS` and `SLM_JAX_REAL_SPEECH` name the folders
of weights and recordings, `weights` and `data/real_speech` unless they are set. A line of the game lies on the same
side of the split in both languages.
"""

import os
import runpy
from pathlib import Path

from slm_jax.data.corpus import ManifestConfig, NamedCorpusConfig, SeveralCorporaConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.training.loop import TrainConfig

SPEECH = Path(os.environ.get("SLM_JAX_REAL_SPEECH", "data/real_speech"))
HEARD = Path(os.environ.get("SLM_JAX_HEARD", "runs/real")) / "stages" / "answers"
LANGUAGES = {"czech": "cs", "dutch": "nl"}
TRANSLATE = AskedTaskConfig(asks=("Translate into English.",), answers=("{translation}",))
WRITE = AskedTaskConfig(asks=("Write down what is said.",))
translations = tuple(PartConfig(name=name, weight=1.0, corpus=name, example=TRANSLATE) for name in LANGUAGES)
transcripts = tuple(PartConfig(name=f"{name}_text", weight=0.5, corpus=name, example=WRITE) for name in LANGUAGES)
heard = runpy.run_path(str(Path(__file__).with_name("config.py")))["answers"]
answers = heard.replace(
    tasks=MixtureConfig(parts=translations + transcripts),
    goes_on=str(HEARD),
    length=100,
    train=TrainConfig(steps=900, evaluate_every=300),
)
corpus = SeveralCorporaConfig(
    corpora=tuple(
        NamedCorpusConfig(name=name, corpus=ManifestConfig(path=str(SPEECH / f"fillets-{lang}" / "manifest.jsonl")))
        for name, lang in LANGUAGES.items()
    )
)
judges = (
    TasksJudge(tasks=answers.mixture, longest_s=answers.clip_s, translations=tuple((n, "en") for n in LANGUAGES)),
    LossesJudge(),
)
config = speech_aware_run("dialogue", corpus, (answers,), decoding=AnswerDecoding(max_new=48), judges=judges)
