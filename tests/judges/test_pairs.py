import dataclasses
import json

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data.corpora.settings import FolderConfig, NamedCorpusConfig, SeveralCorporaConfig, WorldConfig
from slm_jax.data.pairs.archives import read_pairs
from slm_jax.data.pairs.world import WorldPairs
from slm_jax.evaluation.pairs import read_scores, rescored
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.pairs import PairsJudge, thinned, world_of
from slm_jax.systems.speech.unit_speech import UNIT_SPEECH_JUDGES
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext
from tests.data.test_pairs_archives import LEXICAL, WORDS, listed, named, sound
from tests.judges.listeners import Listener, Reader
from tests.serving.drawn import drawn_unit_speech_lm


class HighNotes(Listener):
    """Finds a tone the likelier the higher it is; hears a token in every 10 ms."""

    def log_prob(self, conversations):
        clips = [message.speech[0] for (message,) in conversations]
        assert {clip.rate_hz for clip in clips} == {self.rate_hz}
        peaks = [np.abs(np.fft.rfft(clip.samples)).argmax() / len(clip.samples) for clip in clips]
        return [
            np.full(len(clip.samples) // 160, np.log(peak), np.float32) for clip, peak in zip(clips, peaks, strict=True)
        ]


@pytest.fixture
def place(tmp_path):
    return StageContext(RunFolder(tmp_path / "run"), WorldConfig(speakers=2), tmp_path / "data")


def judged(place, *folders, system=None, **fields):
    settings = JudgeSettings(utterances=2, pairs=tuple(map(str, folders)))
    return PairsJudge(**fields).judge(system or HighNotes(says=()), place, settings)


def test_archives_of_several_forms_are_judged_and_their_scores_kept(place, tmp_path):
    folder = tmp_path / "lexical" / "dev"
    listed(folder, LEXICAL, WORDS)
    for row in WORDS:
        sound(
            folder / f"{row[1]}.wav", 700 if row[1] in ("aa", "bb", "ca") else 500
        )  # a voice of word 1 is heard wrong
    section = judged(place, tmp_path / "lexical", named(tmp_path / "sSC", "0_correct", "0_incorrect"))
    tests = section.figures["pairs"]["tests"]
    assert section.figures["pairs"]["score"] == "mean" and list(tests) == ["sWUGGY dev", "sSC"]
    assert tests["sWUGGY dev"]["accuracy"] == 0.75 and tests["sSC"]["accuracy"] == 0.0
    assert {name: part["accuracy"] for name, part in tests["sWUGGY dev"]["groups"].items()} == {
        "in vocabulary": 0.5,
        "out of vocabulary": 1.0,
    }
    kept = place.run.path / "pairs" / "sWUGGY_dev.jsonl"
    assert rescored(kept)["tests"] == {"sWUGGY dev": tests["sWUGGY dev"]}
    settings, pairs = read_scores(kept)
    assert settings["folder"] == str(tmp_path / "lexical") and settings["score"] == "mean"
    assert [pair.id for pair in pairs] == ["1/A", "1/B", "2/A"]
    rows = [row[0] for row in section.tables[0].rows]
    assert rows == ["sWUGGY dev", "sWUGGY dev: in vocabulary", "sWUGGY dev: out of vocabulary", "sSC"]
    assert "averaged" in section.words and "mean" in section.tables[0].header[1]


def test_mean_and_sum_part_where_lengths_differ(place, tmp_path):
    folder = tmp_path / "set"
    sound(folder / "1_b.wav", 400)
    samples = np.sin(2 * np.pi * 500 * np.arange(1600) / 8000) / 3
    write_wav(folder / "0_a.wav", samples, 8_000)  # likelier, and twice as long
    found = {score: judged(place, folder, score=score).figures["pairs"]["tests"]["set"] for score in ("mean", "sum")}
    assert found["mean"]["accuracy"] == 1.0 and found["sum"]["accuracy"] == 0.0
    assert found["sum"]["shorter"] == found["mean"]["shorter"] == 0.0
    assert rescored(place.run.path / "pairs" / "set.jsonl")["score"] == "sum"


def test_the_world_makes_its_own_pairs_and_a_unit_language_model_scores_them(place):
    kinds, system = ("grammar", "speakers"), drawn_unit_speech_lm()
    found = judged(place, system=system, world=WorldPairs(kinds=kinds)).figures["pairs"]["tests"]
    assert list(found) == ["world grammar", "world speakers"]
    assert all(part["pairs"] == 2 and part["accuracy"] in (0.0, 0.5, 1.0) for part in found.values())
    settings, pairs = read_scores(place.run.path / "pairs" / "world_grammar.jsonl")
    assert from_json(settings["world"]) == WorldPairs(kinds=kinds)
    assert all(side.tokens > 1 and side.log_prob < 0 for pair in pairs for side in (pair.positive, pair.negative))
    # each clip's score is its own, whatever stands beside it
    again = judged(place, system=system, world=WorldPairs(kinds=kinds[:1], count=1))
    alone = read_scores(place.run.path / "pairs" / "world_grammar.jsonl")[1]
    assert again.figures["pairs"]["tests"]["world grammar"]["pairs"] == 1
    assert alone[0].positive.log_prob == pytest.approx(pairs[0].positive.log_prob, rel=1e-5)


def test_what_is_lacking_is_said(place, tmp_path):
    several = SeveralCorporaConfig(corpora=(NamedCorpusConfig(name="it", corpus=WorldConfig(seed=4)),))
    assert world_of(dataclasses.replace(place, corpus=several)) == WorldConfig(seed=4)
    recorded = dataclasses.replace(place, corpus=FolderConfig(path="speech"))
    with pytest.raises(Lacking, match="the corpus is not the world"):
        judged(recorded)
    with pytest.raises(Lacking, match="gives no log-probabilities"):
        judged(place, system=Listener(says=()))
    with pytest.raises(Lacking, match="the system reads no speech"):
        judged(place, system=Reader(goes_on=()))
    for name in ("a", "b"):
        named(tmp_path / name / "tSC", "0_correct", "0_incorrect")
    with pytest.raises(UserError, match="two of them hold a test called 'tSC'"):
        judged(place, tmp_path / "a" / "tSC", tmp_path / "b" / "tSC")
    with pytest.raises(UserError, match="score is 'best': one of mean, sum"):
        PairsJudge(score="best")


def test_some_of_an_archive_are_spread_over_its_groups(tmp_path):
    for task in ("gender", "room"):
        named(tmp_path / task, *(f"sample_{number}_{side}" for number in range(6) for side in (0, 1)))
    pairs = read_pairs(tmp_path)
    few = thinned(pairs, 2)
    assert [pair.id for pair in few] == ["gender/0", "gender/3", "room/0", "room/3"]
    assert thinned(pairs, None) == thinned(pairs, 6) == pairs


def test_runs_of_units_have_the_judge_and_it_is_plain_json():
    (judge,) = [one for one in UNIT_SPEECH_JUDGES if one.name == "pairs"]
    assert from_json(json.loads(json.dumps(judge.to_json()))) == judge
