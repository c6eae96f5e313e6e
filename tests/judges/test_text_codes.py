"""The judge of text and codes: who writes nothing sensible has all words wrong, and every clip is there to be heard."""

import pytest

from slm_jax.data.corpus import WorldConfig, prepare_corpus
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.text_codes import TextCodesJudge, late
from slm_jax.layouts.beside import TimeAligned
from slm_jax.layouts.interleaved import ByRatio
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.parallel import TemporalDepth
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext
from tests.serving.drawn_codes import drawn_text_code_lm
from tests.whisper_folder import write_whisper

LETTERS = " '-abcdefghijklmnopqrstuvwxyz"
CORPUS = WorldConfig(hours=0.01, dev_share=0.2, test_share=0.4)
TWO = JudgeSettings(utterances=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world")
    prepare_corpus(CORPUS, path / "data", progress=False)
    return StageContext(RunFolder(path / "run"), CORPUS, path / "data", progress=False)


def test_lateness_is_the_schemes_and_the_layouts():
    schemes = Delay(delays=(0, 1, 4)), TemporalDepth()
    assert late(drawn_text_code_lm(schemes[0], TimeAligned(ahead=-5))) == {"codes": 4, "text": 5}
    assert late(drawn_text_code_lm(schemes[1], TimeAligned(ahead=3))) == {"codes": 3, "text": 0}
    assert late(drawn_text_code_lm(schemes[1], ByRatio())) == {"codes": 0, "text": 0}


@pytest.mark.slow(seconds=40)
def test_what_is_written_and_spoken_is_counted_and_can_be_heard(world, tmp_path):
    write_whisper(tmp_path / "whisper")
    system = drawn_text_code_lm(Delay(delays=(0, 1, 2)), TimeAligned(ahead=-3), LETTERS)
    section = TextCodesJudge(whisper=str(tmp_path / "whisper")).judge(system, world, TWO)
    found = section.figures["text_codes"]
    assert list(found) == ["late", "heard", "spoken", "codec"]
    assert all(found[name]["wer"] > 0.5 and found[name]["utterances"] == 2 for name in ("heard", "spoken", "codec"))
    assert [sound.name for sound in section.sounds] == [
        "text_codes_spoken_0", "text_codes_spoken_1", "text_codes_codec_0", "text_codes_codec_1"
    ]  # fmt: skip
    made, coded = section.sounds[0].samples, section.sounds[2].samples
    assert len(made) == len(coded) and abs(made - coded).max() > 0
    assert list(section.tables[1].header) == ["", "said", "heard", "spoken", "codec"]


def test_who_takes_turns_is_not_asked_to_write_and_without_whisper_nobody_listens(world, tmp_path):
    judge = TextCodesJudge(whisper=str(tmp_path / "none"))
    system = drawn_text_code_lm(Delay(delays=(0, 1, 2)), ByRatio(text=5, frames=10), LETTERS)
    assert list(judge.judge(system, world, TWO).figures["text_codes"]) == ["late"]
    with pytest.raises(Lacking, match="no held-out utterance has words"):
        TextCodesJudge(longest_s=0.01).judge(system, world, TWO)
