"""Archives of pairs in the forms in which they are published, small ones of tones."""

import numpy as np
import pytest

from slm_jax.audio.files import AudioError, write_wav
from slm_jax.core.errors import UserError
from slm_jax.data.pairs.archives import read_pairs

RATE_HZ = 8_000
LEXICAL = ("id", "filename", "voice", "frequency", "word", "phones", "length", "correct")
SYNTACTIC = ("id", "filename", "voice", "type", "subtype", "transcription", "correct")
WORDS = (
    (1, "aa", "A", 12, "brick", "b r i k", 4, 1), (1, "ab", "A", "", "blick", "b l i k", 4, 0),
    (1, "ba", "B", 12, "brick", "b r i k", 4, 1), (1, "bb", "B", "", "blick", "b l i k", 4, 0),
    (2, "ca", "A", 0, "zarf", "z a r f", 4, 1), (2, "cb", "A", "", "zarv", "z a r v", 4, 0),
)  # fmt: skip
SENTENCES = (
    (7, "da", "A", "agreement", "regular", "dogs bark", 1), (7, "db", "A", "agreement", "regular", "dogs barks", 0),
    (7, "ea", "A", "filler_gap", "island", "who left", 1), (7, "eb", "A", "filler_gap", "island", "left who", 0),
)  # fmt: skip


def sound(path, hertz=440.0, rate_hz=RATE_HZ):
    """A tone of a tenth of a second; a name of its own for each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate_hz // 10) / rate_hz), rate_hz)


def listed(folder, header, rows, name="gold.csv", audio="."):
    """A list with its audio."""
    for row in rows:
        sound(folder / audio / f"{row[1]}.wav")
    lines = [",".join(map(str, row)) for row in (header, *rows)]
    (folder / name).write_text("\n".join(lines) + "\n")


def named(folder, *names):
    for place, name in enumerate(names):
        sound(folder / f"{name}.wav", 300.0 + 50 * place)
    return folder


def shown(pairs):
    """(group, name of the right file, name of the wrong one)."""
    return [(pair.group, pair.positive.path.stem, pair.negative.path.stem) for pair in pairs]


def test_zerospeech_2021_is_read_as_a_whole_and_in_parts(tmp_path):
    listed(tmp_path / "lexical" / "dev", LEXICAL, WORDS)
    listed(tmp_path / "syntactic" / "dev", SYNTACTIC, SENTENCES, name="gold", audio="wav")
    whole = read_pairs(tmp_path)
    assert [pair.test for pair in whole] == ["sWUGGY dev"] * 3 + ["sBLIMP dev"] * 2
    words, sentences = read_pairs(tmp_path / "lexical"), read_pairs(tmp_path / "syntactic" / "dev")
    assert whole == words + sentences
    assert shown(words) == [
        ("in vocabulary", "aa", "ab"),
        ("in vocabulary", "ba", "bb"),
        ("out of vocabulary", "ca", "cb"),
    ]
    assert [(pair.id, pair.item) for pair in words] == [("1/A", "1"), ("1/B", "1"), ("2/A", "2")]
    assert shown(sentences) == [("agreement", "da", "db"), ("filler_gap", "ea", "eb")]
    assert len({pair.item for pair in sentences}) == 2  # ids of sentences count within their subtype


def test_a_list_is_checked_row_by_row(tmp_path):
    listed(tmp_path, LEXICAL, WORDS[:-1])
    with pytest.raises(UserError, match=r"ca.wav' has no partner: the wrong member"):
        read_pairs(tmp_path)
    listed(tmp_path, LEXICAL, (*WORDS, (2, "cc", "A", "", "zarg", "z a r g", 4, 0)))
    with pytest.raises(UserError, match=r"cb.wav', '.*cc.wav' are all the wrong member of one pair"):
        read_pairs(tmp_path)
    listed(tmp_path, LEXICAL, WORDS)
    (tmp_path / "ab.wav").unlink()
    with pytest.raises(AudioError, match=r"ab.wav.*\(missing\)"):
        read_pairs(tmp_path)
    listed(tmp_path, ("id", "filename", "voice", "correct"), [("1", "aa", "A", "1")])
    with pytest.raises(UserError, match=r"gold.csv.*needs id, filename, voice, correct and frequency"):
        read_pairs(tmp_path)
    (tmp_path / "gold.csv").write_text(",".join(LEXICAL))
    with pytest.raises(UserError, match="it has no row"):
        read_pairs(tmp_path)


@pytest.mark.parametrize("names", [
    ("0_ab-1_correct", "1_ab-1_incorrect", "10_cd_correct", "11_cd_incorrect", "2_ef_correct", "3_ef_incorrect"),
    ("0_correct", "0_incorrect", "10_correct", "10_incorrect", "2_correct", "2_incorrect"),
])  # fmt: skip
def test_storycloze_pairs_a_story_with_its_other_ending(tmp_path, names):
    folder = named(tmp_path / "tSC", *names)
    (folder / f"{names[0]}.txt").write_text("Once upon a time.")
    pairs = read_pairs(folder)
    assert {pair.test for pair in pairs} == {"tSC"}
    assert shown(pairs) == [("", names[0], names[1]), ("", names[4], names[5]), ("", names[2], names[3])]
    (folder / f"{names[3]}.wav").unlink()
    with pytest.raises(UserError, match=rf"{names[2]}.wav' has no partner: the wrong member"):
        read_pairs(folder)


def test_salmon_is_a_task_for_each_folder(tmp_path):
    named(
        tmp_path / "gender_consistency",
        "sample_0_0",
        "sample_0_1",
        "sample_10_0",
        "sample_10_1",
        "sample_2_0",
        "sample_2_1",
    )
    named(tmp_path / "bg_alignment", "sample_0_0", "sample_0_1")
    sound(tmp_path / "__MACOSX" / "bg_alignment" / "._sample_0_0.wav")
    (tmp_path / "bg_alignment" / "metadata.json").write_text("[]")
    pairs = read_pairs(tmp_path)
    assert {pair.test for pair in pairs} == {"SALMon"} and len({pair.id for pair in pairs}) == 4
    assert shown(pairs)[0] == ("bg_alignment", "sample_0_0", "sample_0_1")
    assert [right for _, right, _ in shown(pairs)[1:]] == ["sample_0_0", "sample_2_0", "sample_10_0"]
    assert {pair.group for pair in read_pairs(tmp_path / "gender_consistency")} == {"gender_consistency"}
    sound(tmp_path / "bg_alignment" / "sample_0_2.wav")
    with pytest.raises(UserError, match=r"sample_0_1.wav', '.*sample_0_2.wav' are all the wrong member"):
        read_pairs(tmp_path)


@pytest.mark.parametrize("mark", ["_", "+"])
def test_numbered_files_pair_two_and_two(tmp_path, mark):
    for voice in ("anna", "ben"):
        named(tmp_path / "set" / voice, *(f"{number}{mark}w{number}" for number in (8, 9, 10, 11)))
    pairs = read_pairs(tmp_path / "set")
    assert shown(pairs)[:2] == [("anna", f"8{mark}w8", f"9{mark}w9"), ("anna", f"10{mark}w10", f"11{mark}w11")]
    assert {pair.group for pair in pairs} == {"anna", "ben"} and {pair.test for pair in pairs} == {"set"}
    (tmp_path / "set" / "ben" / f"9{mark}w9.wav").unlink()
    with pytest.raises(UserError, match=r"8.w8.wav' has no partner: there is no file with number 9"):
        read_pairs(tmp_path / "set")
    sound(tmp_path / "set" / "ben" / f"8{mark}again.wav")
    with pytest.raises(UserError, match=r"8.again.wav' and '.*8.w8.wav' have one number"):
        read_pairs(tmp_path / "set")


def test_what_is_no_archive_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty': holds no audio file"):
        read_pairs(tmp_path / "empty")
    with pytest.raises(UserError, match=r"no such folder .did you mean 'empty'"):
        read_pairs(tmp_path / "emty")
    named(tmp_path / "other", "hello")
    with pytest.raises(UserError, match=r"'hello.wav' is of no known form; known are gold.csv, StoryCloze, SALMon"):
        read_pairs(tmp_path / "other")
    named(tmp_path / "mixed", "0_a", "1_b", "readme")
    with pytest.raises(UserError, match=r"readme.wav': is not called as the others"):
        read_pairs(tmp_path / "mixed")
    named(tmp_path / "torn", "0_a", "1_b")
    (tmp_path / "torn" / "1_b.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"1_b.wav"):
        read_pairs(tmp_path / "torn")


def test_a_clip_comes_at_the_rate_that_is_asked_for(tmp_path):
    sound(tmp_path / "0_a.wav", rate_hz=8_000)
    sound(tmp_path / "1_b.wav", rate_hz=22_050)
    (pair,) = read_pairs(tmp_path)
    for clip in (pair.positive, pair.negative):
        samples = clip.samples(16_000)
        assert samples.dtype == np.float32 and abs(len(samples) - 1_600) <= 1
        peak = np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples)
        assert peak == pytest.approx(440, abs=10)
