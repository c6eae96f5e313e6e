"""The manner of the world's speech, listened to with numbers: rates, channels, overlaps, backchannels and styles."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from slm_jax.core.messages import conversation
from slm_jax.data.corpora.settings import WorldConfig
from slm_jax.data.corpora.world_instructions import is_right
from slm_jax.data.corpora.world_manner import BACKCHANNELS, LEVELS_DB, REGISTERS
from slm_jax.data.corpora.world_plans import KINDS, plans
from slm_jax.data.corpora.world_records import make_record
from slm_jax.data.corpora.world_turns import world_item
from slm_jax.data.corpora.world_voice import make_speakers
from slm_jax.data.corpus import PHONES, open_corpus, prepare_corpus
from tests.data.test_world_corpus import periodicity

GOLDEN = Path(__file__).parents[1] / "golden" / "world_16khz.npz"
RATE_HZ = 24_000
LIVELY = WorldConfig(
    hours=0.004,
    question_hours=0.002,
    dialogue_hours=0.016,
    instruction_hours=0.008,
    speakers=8,
    seed=3,
    rate_hz=RATE_HZ,
    channels=2,
    split_by="speaker",
    dev_share=0.3,
    test_share=0.3,
    shortest_pause_s=0.1,
    longest_pause_s=0.8,
    overlap_share=0.5,
    backchannel_share=0.6,
    styles=("rate", "energy", "register"),
    processes=1,
)


def first_plans(config, kind, count):
    return list(itertools.islice(plans(config, kind), count))


def spoken(plan, config):
    """The record of a plan as an item of a source."""
    return world_item(make_record(plan, config, make_speakers(config.speakers, config.seed)))


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Everything in a corpus with all that makes speech lively, by split."""
    folder = tmp_path_factory.mktemp("lively")
    prepare_corpus(LIVELY, folder, progress=False)
    sources = {split: open_corpus(LIVELY, folder, split, kinds=tuple(KINDS)) for split in ("train", "dev", "test")}
    return {split: [source[i] for i in range(len(source))] for split, source in sources.items()}


@pytest.fixture(scope="module")
def dialogues(items):
    return [item for split in items.values() for item in split if item["kind"] == "dialogue"]


def words_s(item, turn):
    """Start of a turn's first word and end of its last, seconds."""
    own = item["word_turn"] == turn
    return float(item["word_start_s"][own].min()), float(item["word_end_s"][own].max())


def heard_s(item, turn):
    """Where a turn is within 30 dB of its loudest 10 ms, seconds."""
    (start_s, end_s), channel = words_s(item, turn), item["turns"][turn]["channel"]
    samples = part(item, start_s - 0.05, end_s, channel)
    frames = np.square(samples[: len(samples) // 240 * 240].reshape(-1, 240) / 32768.0).mean(axis=1)
    loud = np.flatnonzero(frames > 1e-3 * frames.max())
    return start_s - 0.05 + loud[0] * 0.01, start_s - 0.05 + (loud[-1] + 1) * 0.01


def rms(samples):
    """Of int16 samples, on a scale of 1."""
    return float(np.sqrt(np.mean(np.square(samples / 32768.0)))) if len(samples) else 0.0


def part(item, start_s, end_s, channel):
    return item["samples"][round(start_s * RATE_HZ) : round(end_s * RATE_HZ), channel]


def test_at_16_khz_the_world_is_what_it_was():
    """Every sixteenth sample, pitch, phones and words of records made before there was another rate or channel."""
    config = WorldConfig(hours=1.0, question_hours=1.0, dialogue_hours=1.0, speakers=4, seed=7)
    golden, compared = np.load(GOLDEN), 0
    for kind, count in (("sentence", 2), ("question_answer", 2), ("dialogue", 1)):
        for plan in first_plans(config, kind, count):
            record = make_record(plan, config, make_speakers(4, 7))
            assert len(record["samples"]) == golden[f"{record['id']}.length"]
            # the same processor repeats each bit; another one may round the model's sums differently
            np.testing.assert_allclose(record["samples"][::16], golden[f"{record['id']}.samples"], rtol=0, atol=2)
            np.testing.assert_allclose(record["f0_hz"], golden[f"{record['id']}.f0_hz"], rtol=1e-4)
            for name in ("phone_ids", "phone_start_s", "phone_end_s", "word_start_s", "word_end_s"):
                np.testing.assert_allclose(record[name], golden[f"{record['id']}.{name}"], rtol=1e-6)
            compared += 1
    assert compared == 5


@pytest.mark.parametrize("rate_hz", [22_050, 24_000, 44_100])
def test_another_rate_is_the_same_speech(rate_hz):
    """Times and pitch agree with those at 16 kHz, and brought to 16 kHz the samples do."""
    base = WorldConfig(question_hours=1.0, speakers=3, seed=7)
    (plan,) = first_plans(base, "question_answer", 1)
    plan["turns"] = [[0, 1, *plan["turns"][0][2:]], [1, 2, *plan["turns"][1][2:]]]
    low, high = (spoken(plan, config) for config in (base, base.replace(rate_hz=rate_hz)))
    assert len(high["samples"]) == round(high["seconds"] * rate_hz) and high["seconds"] == pytest.approx(
        low["seconds"], abs=2e-4
    )
    for name in ("phone_start_s", "phone_end_s", "word_start_s", "word_end_s"):
        np.testing.assert_allclose(high[name], low[name], atol=2e-4)
    np.testing.assert_array_equal(high["f0_hz"], low["f0_hz"])
    spectra = [np.abs(np.fft.rfft(item["samples"].astype(float))) / len(item["samples"]) for item in (low, high)]
    seconds = low["seconds"]
    bands = [[np.sqrt(np.square(s[int(f * seconds) : int((f + 500) * seconds)]).sum()) for f in range(0, 7000, 500)]
             for s in spectra]  # fmt: skip
    np.testing.assert_allclose(*np.asarray(bands), rtol=0.05)
    assert np.square(spectra[1][int(8200 * seconds) : int(11_000 * seconds)]).sum() > 0
    for item in (low, high):
        hz = 16_000 if item is low else rate_hz
        at, above, below = np.median(np.asarray(periodicity(item["samples"] / 32768, item["f0_hz"], hz)), axis=0)
        assert at > 0.7 and above < at - 0.4 and below < at - 0.4


def test_shapes_and_times_of_two_channels(items):
    for item in itertools.chain(*items.values()):
        total_s = len(item["samples"]) / RATE_HZ
        assert item["samples"].dtype == np.int16 and item["samples"].shape[1:] == (2,)
        assert item["f0_hz"].shape == (int(np.ceil(total_s * 80 - 1e-6)), 2) and item["f0_hz"].dtype == np.float32
        assert item["seconds"] == pytest.approx(total_s)
        assert len(item["phone_turn"]) == len(item["phone_ids"]) and len(item["word_turn"]) == len(item["words"])
        assert set(item["word_turn"]) == set(range(len(item["turns"])))
        assert (item["phone_end_s"] > item["phone_start_s"]).all() and item["phone_end_s"].max() <= total_s + 1e-4
        for turn in range(len(item["turns"])):  # within a turn nothing overlaps
            own = item["phone_turn"] == turn
            np.testing.assert_array_equal(item["phone_start_s"][own][1:], item["phone_end_s"][own][:-1])
            own = item["word_turn"] == turn
            assert (item["word_start_s"][own][1:] >= item["word_end_s"][own][:-1] - 1e-6).all()


def test_who_is_alone_is_on_channel_0(items):
    alone = [i for i in itertools.chain(*items.values()) if i["kind"] in ("sentence", "instruction")]
    assert len(alone) > 8
    for item in alone:
        assert not item["samples"][:, 1].any() and not item["f0_hz"][:, 1].any()
        assert rms(item["samples"][:, 0]) > 0.005 and item["f0_hz"][:, 0].any()


def test_channels_hold_one_voice_each(items, dialogues):
    """Outside the turns of a voice its channel is zero to the bit; inside its words there is speech."""
    asked = [item for split in items.values() for item in split if item["kind"] == "question_answer"]
    assert asked and dialogues
    for item in asked + dialogues:
        for voice in (0, 1):
            quiet = np.ones(len(item["samples"]), bool)
            for i, turn in enumerate(item["turns"]):
                if turn["voice"] == voice:
                    assert turn["channel"] == voice
                    quiet[round(turn["start_s"] * RATE_HZ) : round(turn["end_s"] * RATE_HZ)] = False
                    assert rms(part(item, *words_s(item, i), voice)) > 0.005
            assert quiet.any() and not item["samples"][quiet, voice].any()


def test_pauses_and_overlaps_are_as_drawn(dialogues):
    overlaps, pauses = [], []
    for item in dialogues:
        turns = [(i, turn) for i, turn in enumerate(item["turns"]) if not turn.get("backchannel")]
        for (i, turn), (j, after) in itertools.pairwise(turns):
            start_s, end_s = heard_s(item, j)[0], heard_s(item, i)[1]
            if start_s >= end_s:
                pauses.append(after["start_s"] - turn["end_s"])
                continue
            overlaps.append(end_s - start_s)
            for k, channel in ((i, turn["channel"]), (j, after["channel"])):  # heard on both channels
                assert rms(part(item, start_s, end_s, channel)) > 0.03 * rms(part(item, *heard_s(item, k), channel))
    assert len(overlaps) > 3 and min(overlaps) > 0.05 and max(overlaps) < LIVELY.longest_overlap_s + 0.02
    assert len(pauses) > 3 and min(pauses) >= 0.1 - 1e-3 and max(pauses) <= 0.8 + 0.0130


def test_backchannels_lie_inside_the_other_voices_words(dialogues):
    found = 0
    for item in dialogues:
        for i, turn in enumerate(item["turns"]):
            if turn.get("backchannel"):
                start_s, end_s = heard_s(item, i)
                hosts = [heard_s(item, j) for j, t in enumerate(item["turns"]) if t["voice"] != turn["voice"]]
                assert any(a < start_s and end_s < b for a, b in hosts) and turn["text"] in BACKCHANNELS
                mine = [heard_s(item, j) for j, t in enumerate(item["turns"]) if t["voice"] == turn["voice"] and j != i]
                assert all(b < start_s or end_s < a for a, b in mine)
                assert turn["start_s"] <= start_s + 0.02 and end_s <= turn["end_s"] + 0.02
                found += 1
    assert found > 3


def test_turns_of_one_voice_share_no_time(dialogues):
    """Cut out by its times, a turn holds all its words and none of another turn of its voice."""
    for item in dialogues:
        for voice in (0, 1):
            own = [(i, turn) for i, turn in enumerate(item["turns"]) if turn["voice"] == voice]
            assert all(a["end_s"] <= b["start_s"] for (_, a), (_, b) in itertools.pairwise(own))
            for i, turn in own:
                start_s, end_s = words_s(item, i)
                assert turn["start_s"] <= start_s + 1e-4 and end_s <= turn["end_s"] + 1e-4


def test_nobody_is_heard_in_two_splits(items):
    heard = {split: {turn["speaker"] for item in known for turn in item["turns"]} for split, known in items.items()}
    assert all(heard.values())
    assert all(not heard[a] & heard[b] for a, b in itertools.combinations(heard, 2))


def test_pitch_and_styles_of_a_corpus(items):
    """The stated pitch is that of the samples in every register; levels are as labelled; fast phones are short."""
    agreement, phones_s, single = [], {"slow": [], "normal": [], "fast": []}, 0
    for item in itertools.chain(*items.values()):
        for i, turn in enumerate(item["turns"]):
            own = (item["phone_turn"] == i) & (item["phone_ids"] != PHONES.index("sil"))
            phones_s[turn["speaking_rate"]].extend((item["phone_end_s"] - item["phone_start_s"])[own])
        first = item["turns"][0]
        assert (item["speaking_rate"], item["energy"]) == (first["speaking_rate"], first["energy"])
        if item["kind"] == "sentence":
            single += 1
            assert abs(20 * np.log10(rms(item["samples"][:, 0])) - LEVELS_DB[item["energy"]]) < 2.0
            agreement += periodicity(item["samples"][:, 0] / 32768, item["f0_hz"][:, 0], RATE_HZ)
    at, above, below = np.median(np.asarray(agreement), axis=0)
    assert single > 3 and at > 0.7 and above < at - 0.4 and below < at - 0.4
    slow, normal, fast = (np.mean(phones_s[label]) for label in ("slow", "normal", "fast"))
    assert slow > 1.15 * normal and normal > 1.15 * fast


def test_each_style_changes_what_it_names_and_nothing_else():
    """One sentence in every style: length, level and pitch move with their own label."""
    config = LIVELY.replace(channels=1, rate_hz=16_000)
    (plan,) = first_plans(config, "sentence", 1)
    normal = {"rate": "normal", "energy": "normal", "register": "normal", "speed": 1.0}

    def said(**style):
        item = spoken({**plan, "styles": [{**normal, **style}]}, config)
        return item["seconds"], 20 * np.log10(rms(item["samples"])), float(np.median(item["f0_hz"][item["f0_hz"] > 0]))

    seconds, level, pitch = said()
    for register in ("low", "high"):
        changed = said(register=register)
        assert changed[0] == seconds and abs(changed[1] - level) < 0.1
        assert changed[2] / pitch == pytest.approx(REGISTERS[register], rel=0.02)
    for energy in ("soft", "loud"):
        changed = said(energy=energy)
        assert changed[0] == seconds and changed[2] == pitch and abs(abs(changed[1] - level) - 7.0) < 1.0
    slow, fast = said(rate="slow", speed=0.75), said(rate="fast", speed=1.3)
    assert slow[0] > 1.15 * seconds and fast[0] < seconds / 1.15
    assert all(abs(one[1] - level) < 0.1 and one[2] == pytest.approx(pitch, rel=0.06) for one in (slow, fast))


def test_messages_tell_what_the_turns_tell(items):
    for item in itertools.chain(*items.values()):
        messages = item["messages"]
        if item["kind"] == "instruction":
            continue
        assert [m.role for m in messages] == [("user", "assistant")[turn["voice"]] for turn in item["turns"]]
        for message, turn in zip(messages, item["turns"], strict=True):
            expected = (turn["text"], turn["channel"], turn["start_s"], turn["end_s"], turn["speaker"], turn["answer"])
            m = message
            assert (m.text, m.channel, m.start_s, m.end_s, m.speaker, m.answer) == expected
        clip = conversation(messages[:1], item["samples"] / 32768.0, RATE_HZ)[0].speech[0]
        assert clip.rate_hz == RATE_HZ and rms(clip.samples * 32768) > 0.005
    kinds = {item["kind"] for item in itertools.chain(*items.values())}
    assert kinds == set(KINDS)


def test_an_instruction_is_heard_asked_and_answered(items):
    found = [item for item in itertools.chain(*items.values()) if item["kind"] == "instruction"]
    assert len({item["task"] for item in found}) > 2
    for item in found:
        heard, asked, reply = item["messages"]
        assert [m.role for m in (heard, asked, reply)] == ["user", "user", "assistant"]
        assert (heard.start_s, heard.end_s, heard.text) == (0.0, pytest.approx(item["seconds"]), item["text"])
        assert not asked.is_heard and not reply.is_heard
        assert (item["question"], item["answer"]) == (asked.text, reply.text)
        assert is_right(item["task"], reply.answer, reply.text) and item["task"] not in ("speaker", "first_speaker")
        roles = [message.role for message in conversation(item["messages"], item["samples"] / 32768.0, RATE_HZ)]
        assert roles == ["user", "assistant"]


def test_a_plan_gives_its_record_again_and_mixed_it_is_the_sum_of_its_channels(items, dialogues):
    (plan,) = first_plans(LIVELY, "dialogue", 1)
    (stored,) = [item for item in dialogues if item["id"] == plan["id"]]
    again = spoken(plan, LIVELY)
    for name in ("samples", "f0_hz", "phone_start_s", "word_end_s", "messages", "turns", "text"):
        np.testing.assert_array_equal(again[name], stored[name])
    mixed = spoken(plan, LIVELY.replace(channels=1))
    together = stored["samples"].astype(int).sum(axis=1)
    together = together * min(1.0, np.abs(mixed["samples"].astype(int)).max() / np.abs(together).max())
    np.testing.assert_allclose(mixed["samples"], together, atol=3)
    assert mixed["f0_hz"].shape == stored["f0_hz"].shape[:1]
    one_voice = (stored["f0_hz"] > 0).sum(axis=1) == 1
    either = np.isin(mixed["f0_hz"][one_voice], [0.0]) | (mixed["f0_hz"] == stored["f0_hz"].max(axis=1))[one_voice]
    assert either.all() and (mixed["f0_hz"][one_voice] > 0).mean() > 0.9


def test_corpora_of_earlier_have_messages_too():
    """Records stored before there were messages: the same turns, and whose each phone and word is."""
    config = WorldConfig(dialogue_hours=1.0, speakers=2, seed=7)
    (plan,) = first_plans(config, "dialogue", 1)
    record = make_record(plan, config, make_speakers(2, 7))
    now = world_item(record)
    later = ("messages", "phone_turn", "word_turn", "task", "speaking_rate", "energy", "register")
    before = world_item({name: value for name, value in record.items() if name not in later})
    assert before["messages"] == now["messages"] and len(now["messages"]) > 2
    for name in later[1:]:
        np.testing.assert_array_equal(before[name], now[name])
