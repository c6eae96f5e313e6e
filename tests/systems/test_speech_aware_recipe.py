"""What speech-aware systems share: a run whose last stage is loaded, asked its own tasks and judged by them."""

import json

import jax
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import ManifestConfig, prepare_corpus
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext
from tests.training.small_answers import CORPUS, ENCODER, Tones, carry_out, stage_of, write_parts
from tests.training.small_parts import delta


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones as recordings, six to train on and six held out, one of them too long: its config and its data."""
    folder = tmp_path_factory.mktemp("tones")
    rows = []
    for number in range(12):
        tone = Tones()[number % 8]
        write_wav(folder / f"{number}.wav", tone["samples"] / 32_768, 16_000)
        split = "train" if number < 6 else "test"
        rows.append({"audio_filepath": f"{number}.wav", "id": str(number), "text": tone["text"], "split": split})
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ManifestConfig(path=str(folder / "all.jsonl"), processes=1)
    prepare_corpus(config, folder / "data", progress=False)
    return config, folder / "data"


def test_a_run_is_put_together(parts):
    run = speech_aware_run("small", CORPUS, (stage_of(parts),))
    assert (run.answers, [judge.name for judge in run.judges]) == ("answers", ["tasks", "losses"])
    tasks = run.judges[0]
    assert (tasks.tasks, tasks.longest_s) == (run.answering.mixture, 0.375)
    assert run.keeps.kinds == CORPUS.default_kinds()
    assert from_json(run.to_json()) == run
    assert speech_aware_run("other", CORPUS, run.stages, judges=()).judges == ()
    another = delta("folder", expect=ENCODER)
    with pytest.raises(UserError, match="answers is 'delta': is no stage that learns to answer"):
        _ = run.replace(stages=(another,), answers="delta").answering
    with pytest.raises(UserError, match="stages is 'delta': the last one learns to answer"):
        speech_aware_run("other", CORPUS, (*run.stages, another))


def test_the_trained_system_is_asked_and_judged(parts, corpus, tmp_path):
    run = speech_aware_run("small", corpus[0], (stage_of(parts),), decoding=AnswerDecoding(max_new=8))
    context = StageContext(RunFolder(tmp_path / "run"), *corpus, progress=False, say=[].append)
    carry_out(run.answering, context)
    system = run.load(context)
    prompts = run.prompts(context, 3)
    assert list(prompts) == ["heard_1", "heard_2", "written_1"]
    assert [message.kinds for (message,) in prompts.values()] == [{"speech", "text"}, {"speech", "text"}, {"text"}]
    replies = system.respond(list(prompts.values()), None, jax.random.key(0))
    assert all(reply.messages[0].role == "assistant" for reply in replies)
    figures = run.judges[0].judge(system, context, JudgeSettings(utterances=4)).figures["tasks"]
    assert {name: (row["questions"], row["other_speech"]["questions"]) for name, row in figures.items()} == {
        "heard": (4, 4),
        "written": (4, 0),
    }
