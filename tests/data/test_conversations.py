"""Messages of manifests: turns beside a recording, conversations of clips, and what is wrong with them."""

import json

import numpy as np

from slm_jax.audio.files import write_wav
from slm_jax.core.messages import Turn, conversation
from slm_jax.data.corpus import (
    FolderConfig,
    ManifestConfig,
    NamedCorpusConfig,
    SeveralCorporaConfig,
    open_corpus,
    prepare_corpus,
)
from slm_jax.data.passes import float_samples
from slm_jax.data.prepare import REJECTED, read_lines

RATE = 16_000
TRAIN = {"processes": 1, "dev_share": 0.0, "test_share": 0.0}


def noise(seconds, seed=0, channels=1):
    samples = 0.1 * np.random.default_rng(seed).normal(size=(round(seconds * RATE), channels))
    return samples[:, 0] if channels == 1 else samples


def written(folder, rows):
    """The config of a manifest with these rows, beside `a.wav` (1 s), `b.wav` (0.5 s) and `two.wav` (two channels)."""
    write_wav(folder / "a.wav", noise(1.0), RATE)
    write_wav(folder / "b.wav", noise(0.5, 1), RATE)
    write_wav(folder / "two.wav", noise(1.0, 2, channels=2), RATE)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ManifestConfig(path=str(folder / "manifest.jsonl"), **TRAIN)


def items_of(config, folder):
    prepare_corpus(config, folder, progress=False)
    source = open_corpus(config, folder, "train")
    return {source.ids[i]: source[i] for i in range(len(source))}


def test_turns_beside_a_recording_come_back_as_turns(tmp_path):
    turns = [
        {"role": "system", "text": "Answer."},
        {"role": "user", "text": "hello", "start_s": 0.1, "end_s": 0.5, "speaker": "ann"},
        {"role": "assistant", "text": "hi", "start_s": 0.4, "end_s": 1.05},
    ]
    rows = [{"audio_filepath": "a.wav", "id": "told", "messages": turns, "mood": {"glad": [1]}}]
    rows.append({"audio_filepath": "b.wav", "id": "plain", "text": "so", "speaker": "bob"})
    items = items_of(written(tmp_path, rows), tmp_path / "data")
    system, user, assistant = items["told"]["messages"]
    assert system == Turn("system", "Answer.") and user == Turn.from_json(turns[1])
    assert (assistant.start_s, assistant.end_s) == (0.4, 1.0)  # a little after the end is the end
    assert items["told"]["text"] == "hello hi" and items["told"]["extra"] == {"mood": {"glad": [1]}}
    assert items["plain"]["messages"] == (Turn("user", "so", start_s=0.0, end_s=0.5, speaker="bob"),)


def test_nemo_conversations_are_laid_end_to_end(tmp_path):
    clip = {"from": "User", "value": "a.wav", "type": "audio", "duration": 0.3, "offset": 0.2, "text": "what"}
    answer = {"from": "Assistant", "value": "Nothing.", "type": "text"}
    last = {"from": "User", "value": "b.wav", "type": "audio"}
    items = items_of(written(tmp_path, [{"conversations": [clip, answer, last]}]), tmp_path / "data")
    item = items["conversation-1"]
    assert item["text"] == "what" and len(item["samples"]) == round(0.8 * RATE)
    assert item["messages"] == (
        Turn("user", "what", start_s=0.0, end_s=0.3),
        Turn("assistant", "Nothing."),
        Turn("user", None, start_s=0.3, end_s=0.8),
    )
    first, _, third = conversation(item["messages"], float_samples(item["samples"]), RATE)
    np.testing.assert_allclose(first.speech[0].samples, noise(1.0)[3200:8000], atol=1e-4)
    np.testing.assert_allclose(third.speech[0].samples, noise(0.5, 1), atol=1e-4)


def heard(start_s, end_s, **others):
    return {"role": "user", "start_s": start_s, "end_s": end_s} | others


BAD = {
    "a text": ({"messages": "hello"}, "bad_messages"),
    "empty": ({"messages": []}, "bad_messages"),
    "a turn is a list": ({"messages": [["user"]]}, "bad_messages"),
    "no role": ({"messages": [{"text": "x"}]}, "unknown_role"),
    "other role": ({"messages": [{"role": "narrator", "text": "x"}]}, "unknown_role"),
    "text is a number": ({"messages": [{"role": "user", "text": 5}]}, "bad_messages"),
    "unknown field": ({"messages": [heard(0, 1, mood="glad")]}, "bad_messages"),
    "neither heard nor written": ({"messages": [{"role": "user"}]}, "bad_messages"),
    "start alone": ({"messages": [{"role": "user", "start_s": 0.5}]}, "bad_messages"),
    "time is a text": ({"messages": [heard("0", 1)]}, "bad_messages"),
    "negative": ({"messages": [heard(-0.1, 0.5)]}, "bad_times"),
    "backwards": ({"messages": [heard(0.5, 0.2)]}, "bad_times"),
    "not a number": ({"messages": [heard(float("nan"), 0.2)]}, "bad_times"),
    "after the end": ({"messages": [heard(0.0, 1.2)]}, "bad_times"),
    "channel beyond": ({"messages": [heard(0.0, 0.5, channel=1)]}, "bad_channel"),
    "negative channel": ({"messages": [heard(0.0, 0.5, channel=-1)]}, "bad_messages"),
    "twice at once": ({"messages": [heard(0.0, 0.5), heard(0.4, 0.9)]}, "overlapping_turns"),
    "past the stretch": ({"offset": 0.2, "duration": 0.3, "messages": [heard(0.0, 0.7)]}, "bad_times"),
    "two speakers at once": ({"messages": [heard(0.0, 0.5), heard(0.4, 0.9, speaker="bob")]}, None),
    "file and conversation": ({"conversations": [{"from": "User", "value": "x"}]}, "bad_messages"),
}
BAD_CLIPS = {
    "nothing heard": ([{"from": "User", "value": "x"}], "bad_messages"),
    "from whom": ([{"from": "Robot", "value": "b.wav", "type": "audio"}], "unknown_role"),
    "a picture": ([{"from": "User", "value": "b.png", "type": "image"}], "bad_messages"),
    "no value": ([{"from": "User", "type": "audio"}], "bad_messages"),
    "duration is a text": ([{"from": "User", "value": "b.wav", "type": "audio", "duration": "x"}], "bad_messages"),
    "negative offset": ([{"from": "User", "value": "b.wav", "type": "audio", "offset": -1}], "bad_times"),
    "absent clip": ([{"from": "User", "value": "c.wav", "type": "audio"}], "missing"),
    "long stretch": ([{"from": "User", "value": "b.wav", "type": "audio", "duration": 3}], "bad_duration"),
}


def test_bad_messages_have_reasons_of_their_own(tmp_path):
    rows = [{"audio_filepath": "a.wav", "id": name} | row for name, (row, _) in BAD.items()]
    rows += [{"id": name, "conversations": turns} for name, (turns, _) in BAD_CLIPS.items()]
    report = prepare_corpus(written(tmp_path, rows), tmp_path / "data", progress=False)
    rejected = {row["item"]: row["reason"] for row in read_lines(tmp_path / report.folder / REJECTED)}
    names = [*BAD, *BAD_CLIPS]
    for name, (_, reason) in (BAD | BAD_CLIPS).items():
        assert rejected.get(name, rejected.get(f"line {names.index(name) + 1}")) == reason, name
    assert sum(report.accepted.values()) == 1 and "unknown_role" in report.to_text()


def test_channels_are_kept_and_other_numbers_are_rejected(tmp_path):
    turns = [heard(0.0, 0.6), heard(0.3, 1.0, channel=1, role="assistant")]
    rows = [{"audio_filepath": "two.wav", "id": "two", "messages": turns}, {"audio_filepath": "a.wav", "id": "one"}]
    config = written(tmp_path, rows).replace(channels=2, rate_hz=24_000)
    report = prepare_corpus(config, tmp_path / "data", progress=False)
    assert report.rejected == {"wrong_channels": 1}
    item = open_corpus(config, tmp_path / "data", "train")[0]
    assert item["samples"].shape == (24_000, 2) and item["samples"].dtype == np.int16 and item["seconds"] == 1.0
    _, assistant = conversation(item["messages"], float_samples(item["samples"]), config.rate_hz)
    assert len(assistant.speech[0].samples) == round(0.7 * 24_000)
    original = noise(1.0, 2, channels=2)
    for channel in range(2):  # each is its own recording at another rate, as loud as it was
        ours = np.fft.rfft(item["samples"][:, channel] / 32767.0)[100:7000] / 1.5
        np.testing.assert_allclose(ours, np.fft.rfft(original[:, channel])[100:7000], atol=1.5)


def test_messages_survive_in_several_corpora(tmp_path):
    one = written(tmp_path, [{"audio_filepath": "a.wav", "text": "x", "speaker": "ann", "more": 1}])
    (tmp_path / "folder" / "bob").mkdir(parents=True)
    write_wav(tmp_path / "folder" / "bob" / "c.wav", noise(0.4), RATE)
    two = FolderConfig(path=str(tmp_path / "folder"), **TRAIN)
    parts = (NamedCorpusConfig(name="told", corpus=one), NamedCorpusConfig(name="read", corpus=two))
    both = SeveralCorporaConfig(corpora=parts)
    items = items_of(both, tmp_path / "data")
    assert items["told/a.wav"]["messages"] == (Turn("user", "x", start_s=0.0, end_s=1.0, speaker="told/ann"),)
    assert items["told/a.wav"]["extra"] == {"more": 1} and items["read/bob/c"]["extra"] == {}
    assert items["read/bob/c"]["messages"][0].speaker == "read/bob"
