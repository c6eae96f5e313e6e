"""A corpus of tones that stand for speech: who knows the pitch knows what is said."""

import json

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.data.corpus import ManifestConfig, prepare_corpus
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext
from tests.judges.listeners import RATE_HZ, SECONDS, TEXTS, tone

ASKED = (
    ("slow", "rate"), ("fast", "rate"), ("slow", "rate"), ("normal", "rate"),
    ("the red book", ""), ("bread", ""), ("soup", ""), ("rice", ""),
)  # fmt: skip


def row(number):
    answer, task = ASKED[number]
    turns = [
        {"role": "user", "text": TEXTS[number], "start_s": 0.0, "end_s": SECONDS},
        {"role": "user", "text": "What is it?"},
        {"role": "assistant", "text": f"It is {answer}.", "answer": answer},
    ]
    task = {"task": task} if task else {}
    return {"audio_filepath": f"{number}.wav", "id": str(number), "text": TEXTS[number], "messages": turns, **task}


def prepared(folder, rows):
    (folder / "all.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    config = ManifestConfig(path=str(folder / "all.jsonl"), processes=1, rate_hz=RATE_HZ)
    prepare_corpus(config, folder / "data", progress=False)
    return StageContext(RunFolder(folder / "run"), config, folder / "data")


@pytest.fixture(scope="session")
def context(tmp_path_factory):
    """Eight held-out items with texts and questions."""
    folder = tmp_path_factory.mktemp("tones")
    for number in range(8):
        write_wav(folder / f"{number}.wav", tone(number), RATE_HZ)
    return prepared(folder, [row(number) | {"split": "test"} for number in range(8)])


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """One held-out item, of which nothing is known."""
    folder = tmp_path_factory.mktemp("bare")
    write_wav(folder / "0.wav", tone(0), RATE_HZ)
    return prepared(folder, [{"audio_filepath": "0.wav", "split": "test"}])


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """Nothing but training."""
    folder = tmp_path_factory.mktemp("empty")
    write_wav(folder / "0.wav", np.asarray(tone(0)), RATE_HZ)
    return prepared(folder, [row(0) | {"split": "train"}])
