"""What Whisper-base itself makes of the game's lines in English: a bound for what hears with its encoder.

    python experiments/speech_aware_real/whisper_translates.py

The first hundred test lines of each language that last at most 8 s. Leaves `whisper_translates.json` beside this file.
`SLM_JAX_REAL_WEIGHTS` and `SLM_JAX_REAL_SPEECH` name the folders of weights and recordings.
"""

import json
import os
from pathlib import Path

from slm_jax.audio.files import read_audio
from slm_jax.evaluation.translation import bleu, chrf
from slm_jax.serving.transcriber import load_transcriber

SPEECH = Path(os.environ.get("SLM_JAX_REAL_SPEECH", "data/real_speech"))
WHISPER = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights")) / "whisper-base"
LONGEST_S, COUNT = 8.0, 100

transcriber = load_transcriber(WHISPER)
found = {}
for name, language in {"czech": "cs", "dutch": "nl"}.items():
    manifest = SPEECH / f"fillets-{language}" / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["split"] == "test" and row["duration"] <= LONGEST_S][:COUNT]
    clips = [read_audio(manifest.parent / row["audio_filepath"], rate_hz=transcriber.rate_hz) for row in rows]
    how = transcriber.decoding.replace(language=language, task="translate", max_new=48)
    said = [one.text for one in transcriber.transcribe(clips, how)]
    wanted = [row["translation"] for row in rows]
    scores = {"bleu": bleu(wanted, said), "chrf": chrf(wanted, said)}
    found[name] = {key: {"score": one.value, "interval": one.interval} for key, one in scores.items()}
    found[name]["samples"] = list(zip(wanted, said, strict=True))[:6]
    print(name, found[name]["bleu"], found[name]["chrf"])
text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
Path(__file__).with_name("whisper_translates.json").write_text(text, encoding="utf-8")
