"""A transcribed corpus as examples of tasks: a corpus again, which says to the sample what the tasks say."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Speech, conversation
from slm_jax.data.corpora.conversation_rows import conversation_row
from slm_jax.data.corpora.conversations import from_text
from slm_jax.data.corpus import ManifestConfig, TaskCorpusConfig, kinds_of, open_corpus, parse_corpus, prepare_corpus
from slm_jax.data.examples.chosen_tasks import FieldTaskConfig, FirstTaskConfig, OneTaskConfig, ToldTaskConfig
from slm_jax.data.examples.named_tasks import named_tasks
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig
from slm_jax.data.passes import float_samples
from slm_jax.data.shards.make import make_shards
from slm_jax.data.shards.tasks import TaskShardsConfig
from slm_jax.data.shards.workers import by_workers
from tests.data.counting_work import bytes_of

NAMES = ("transcription", "translation", "question", "instruction")
TOLD = (
    {"text": "good morning", "german": "guten morgen"},
    {"text": "the red book", "question": "Which book?", "answer": "The red one."},
    {"text": "we sing", "instruction": "Say it louder.", "output": "WE SING"},
    {
        "text": "who sings?",
        "messages": [
            {"role": "user", "text": "who sings?", "start_s": 0.0, "end_s": 0.2},
            {"role": "assistant", "text": "We all do.", "answer": "all"},
        ],
    },
    {
        "text": "soup",
        "messages": [
            {"role": "user", "text": "soup", "start_s": 0.0, "end_s": 0.2},
            {"role": "user", "text": "Is it hot?"},
            {"role": "assistant", "text": "Yes, it is."},
        ],
    },
    {"text": ""},
)


def one(settings, folder, jobs):
    return by_workers(settings, folder, jobs, processes=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The config of a corpus of what `TOLD` says, three times over, and its data folder."""
    folder, rows = tmp_path_factory.mktemp("told"), []
    for i in range(18):
        noise = (3000 * np.random.default_rng(i).standard_normal(4000 + i)).astype(np.int16)
        soundfile.write(folder / f"{i}.wav", noise, 16_000)
        rows.append({"audio_filepath": f"{i}.wav", "id": f"item-{i}", "split": "train", **TOLD[i % 6]})
    rows[-2]["split"], rows[-6]["split"] = "test", "dev"
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ManifestConfig(path=str(folder / "all.jsonl"))
    prepare_corpus(config.replace(processes=1), folder / "data", progress=False)
    return config, folder / "data"


@pytest.fixture(scope="module")
def work(corpus):
    config, data = corpus
    tasks = named_tasks(NAMES, config, (("german", "German"),))
    return TaskShardsConfig(corpus=config, tasks=tasks, data_dir=str(data), per_shard=4)


@pytest.fixture(scope="module")
def made(work, tmp_path_factory):
    """Its folder of examples."""
    folder = tmp_path_factory.mktemp("made") / "tasks"
    make_shards(work, folder, one, progress=False)
    return folder


def test_every_item_is_there_as_each_task_that_has_an_answer(made):
    config = parse_corpus(f"tasks:{made}")
    assert kinds_of(config, "nowhere") == tuple(sorted(NAMES))
    source = open_corpus(config, "nowhere", "train")
    by_kind = {kind: sum(one == kind for one in source.kinds) for kind in NAMES}
    assert by_kind == {"transcription": 13, "translation": 2, "question": 13, "instruction": 13}
    assert len(set(source.ids)) == len(source) and "item-0/translation-german" in source.ids
    report = prepare_corpus(config, "nowhere")
    assert report.cached and report.rejected == {"no_task": 3} and report.accepted["dev"] == 4
    assert "no_task" in report.to_text()


def test_items_say_what_the_tasks_say_to_the_sample(work, made, corpus):
    there = open_corpus(TaskCorpusConfig(path=str(made)), "nowhere", "train")
    items = {item["id"]: item for item in (open_corpus(*corpus, "train")[i] for i in range(16))}
    tasks = {task.name: task.task for task in work.tasks}
    for i in range(len(there)):
        item, (name, _, task) = there[i], there.ids[i].partition("/")
        found = conversation(item["messages"], float_samples(item["samples"]), 16_000)
        assert item["of"] == name and found[-1].role == "assistant"
        wanted = tasks[task].conversation(items[name], 16_000, np.random.default_rng(0))
        np.testing.assert_array_equal(found[0].speech[0].samples, wanted[0].speech[0].samples)
        assert item["text"] == items[name]["text"]
        read = AnsweredTaskConfig(kinds=(item["kind"],)).conversation(item, 16_000, np.random.default_rng(0))
        assert [message.kinds for message in read] == [message.kinds for message in wanted]
        assert read[-1].text == found[-1].text


def test_what_is_asked_and_answered(made):
    source = open_corpus(TaskCorpusConfig(path=str(made)), "nowhere", "train")
    items = {item["id"]: item["messages"] for item in map(source.__getitem__, range(len(source)))}

    def said(name):
        turns = items[name]
        return " ".join(turn.text for turn in turns[:-1] if not turn.is_heard), turns[-1].text

    assert said("item-0/translation-german")[1] == "guten morgen" and "German" in said("item-0/translation-german")[0]
    assert said("item-1/question") == ("Which book?", "The red one.")
    assert said("item-2/instruction") == ("Say it louder.", "WE SING")
    assert said("item-3/question") == ("", "We all do.") and items["item-3/question"][-1].answer == "all"
    assert said("item-4/instruction") == ("Is it hot?", "Yes, it is.")
    assert said("item-0/question")[1] in ("morning", "2")
    assert "Then:" in said("item-0/instruction")[0] and "good morning" in said("item-0/instruction")[1]


def test_one_example_of_an_item(work, tmp_path):
    report = make_shards(work.replace(per_item=1), tmp_path / "one", one, progress=False)
    assert report.rows == {"train": 13, "dev": 1, "test": 1} and report.left == {"no_task": 3}


@pytest.mark.slow(seconds=30)
def test_two_workers_make_the_same_bytes(work, made, tmp_path):
    make_shards(work, tmp_path / "two", lambda *args: by_workers(*args, processes=2), progress=False)
    assert bytes_of(tmp_path / "two") == bytes_of(made)


def test_a_damaged_record_is_left_out_by_name(work, corpus, tmp_path):
    config, data = corpus
    shutil.copytree(data, tmp_path / "data")
    (shard,) = (tmp_path / "data").rglob("*-test.array_record*")
    content = bytearray(shard.read_bytes())
    content[1000:3000] = bytes(2000)
    shard.write_bytes(content)
    report = make_shards(work.replace(data_dir=str(tmp_path / "data")), tmp_path / "out", one, progress=False)
    assert report.rows["test"] == 0 and report.left == {"no_task": 3, "damaged": 1}
    assert "is damaged" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_what_cannot_be_is_refused(work, corpus, made, tmp_path):
    config, _ = corpus
    with pytest.raises(UserError, match=r"did you mean 'question'|one of transcription"):
        named_tasks(("questions",), config)
    with pytest.raises(UserError, match="--translations german=German"):
        named_tasks(("translation",), config)
    with pytest.raises(UserError, match="is not prepared"):
        make_shards(work.replace(data_dir=str(tmp_path)), tmp_path / "out", one, progress=False)
    with pytest.raises(UserError, match=r"has no report.json"):
        prepare_corpus(TaskCorpusConfig(path=str(tmp_path)), tmp_path)
    with pytest.raises(UserError, match="are at 16000 Hz"):
        open_corpus(TaskCorpusConfig(path=str(made), rate_hz=8_000), "nowhere", "train")
    with pytest.raises(UserError, match="all names different"):
        work.replace(tasks=work.tasks[:1] * 2)


def test_a_conversation_of_several_clips_comes_back():
    clips = [np.arange(-5, 6, dtype=np.float32) / 32768, np.array([1 - 1 / 32768, -1.0], np.float32)]
    task = AskedTaskConfig(answers=("{text}",))
    (user, answer) = task.conversation({"id": "a", "samples": clips[0], "text": "b c"}, 8_000, np.random.default_rng(0))
    said = (type(user)("user", (*user.parts, Speech(clips[1], 8_000))), answer)
    row = conversation_row(said, 8_000, id="a", kind="k", words=("b c", "d"), answer="c")
    turns = from_text(row["messages"])
    found = conversation(turns, float_samples(row["samples"]), 8_000)
    assert row["text"] == "b c d" and turns[-1].answer == "c" and len(row["samples"]) == 13
    for clip, wanted in zip(found[0].speech, clips, strict=True):
        np.testing.assert_array_equal(clip.samples, wanted)
    assert [message.text for message in found] == [message.text for message in said]


def test_tasks_that_choose():
    item = {"id": "a", "samples": np.zeros(10, np.float32), "text": "b c", "question": "What?", "answer": "c"}
    asks = FieldTaskConfig(asks=("{question}", "{lacking}"), answers=("{answer}",))
    said = asks.conversation(item, 16_000, np.random.default_rng(0))
    assert [message.text for message in said] == ["What?", "c"]
    lacks = AskedTaskConfig(answers=("{lacking}",))
    first = FirstTaskConfig(tasks=(lacks, asks))
    assert first.task_of(item) == asks and first.key(item) == "c" and first.words(item) == ("b c",)
    nothing = FirstTaskConfig(tasks=(lacks, ToldTaskConfig()))
    assert nothing.conversation({**item, "messages": ()}, 16_000, np.random.default_rng(0)) is None
    assert nothing.words({**item, "messages": ()}) is None and nothing.key({**item, "messages": ()}) == ""
    drawn = {OneTaskConfig(tasks=(asks, AskedTaskConfig())).task_of({**item, "id": str(i)}) for i in range(20)}
    assert len(drawn) == 2
