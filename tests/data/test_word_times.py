"""Words with times: of the world, of a manifest, and in neither form."""

import json

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.errors import UserError
from slm_jax.data.corpus import ManifestConfig, open_corpus, prepare_corpus
from slm_jax.data.word_times import words_of


def test_words_of_the_world_stand_in_time_with_their_channels():
    item = {
        "id": "a",
        "words": ["how", "are", "you", "mhm"],
        "word_start_s": np.array([0.1, 0.4, 0.9, 0.5], np.float32),
        "word_end_s": np.array([0.3, 0.8, 1.2, 0.6], np.float32),
        "word_turn": np.array([0, 0, 0, 1]),
        "turns": [{"channel": 0}, {"channel": 1}],
    }
    found = words_of(item)
    assert found.words == ("how", "are", "mhm", "you") and found.channel.tolist() == [0, 0, 1, 0]
    assert found.on(1).words == ("mhm",) and found.on(1).start_s.tolist() == [0.5]
    del item["word_turn"]
    assert words_of(item).channel.tolist() == [0] * 4


def test_words_of_a_manifest_come_in_both_forms(tmp_path):
    write_wav(tmp_path / "a.wav", np.random.default_rng(0).normal(size=(32_000, 2)) * 0.1, 16_000)
    spelt = [{"word": " hi ", "start": 0.2, "end": 0.5}, {"word": "you", "start": 1.0, "end": 1.2, "channel": 1}]
    aligned = [["hi", [0.2, 0.5], "SPEAKER_MAIN"], ["you", [1.0, 1.2], "SPEAKER_01"]]
    rows = [{"id": "w", "words": spelt}, {"id": "a", "alignments": aligned}, {"id": "n"}]
    lines = [json.dumps({"audio_filepath": "a.wav", "text": "hi you", **row}) for row in rows]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    config = ManifestConfig(path=str(tmp_path / "all.jsonl"), processes=1, channels=2, dev_share=0.0, test_share=0.0)
    prepare_corpus(config, tmp_path / "data", progress=False)
    source = open_corpus(config, tmp_path / "data", "train")
    found = {source[i]["id"]: words_of(source[i]) for i in range(3)}
    assert found["n"] is None
    for name in "wa":
        assert found[name].words == ("hi", "you") and found[name].channel.tolist() == [0, 1]
        np.testing.assert_allclose(found[name].end_s, [0.5, 1.2])


@pytest.mark.parametrize(
    "words", [["hi"], [{"word": "hi", "start": 1.0}], [["hi", 0.1, "x"]], [{"word": "hi", "start": "a", "end": 1}]]
)
def test_words_in_no_form_are_named(words):
    with pytest.raises(UserError, match=r"words of item 'a' are .*each is \{word, start, end\}"):
        words_of({"id": "a", "extra": {"words": words}})


def test_a_word_ends_after_it_begins():
    with pytest.raises(UserError, match="ends after it begins"):
        words_of({"id": "a", "extra": {"words": [{"word": "hi", "start": 1.0, "end": 0.5}]}})
    assert words_of({"id": "a", "extra": {}}) is None and words_of({"id": "a"}) is None
