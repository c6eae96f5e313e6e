"""The world as a corpus: the same however it is made, whole after a kill, and true in all its times."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data.corpora import world_plans
from slm_jax.data.corpora.parts import is_part, run_parts
from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import answer, spoken_words
from slm_jax.data.corpus import PHONES, WorldConfig, open_corpus, parse_corpus, prepare_corpus

SMALL = WorldConfig(
    hours=0.021,
    question_hours=0.004,
    dialogue_hours=0.004,
    instruction_hours=0.002,
    speakers=3,
    test_share=0.2,
    dev_share=0.2,
    processes=1,
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The small world, prepared by one process."""
    folder = tmp_path_factory.mktemp("world")
    prepare_corpus(SMALL, folder, progress=False)
    return folder


def everything(config, folder):
    """All records of all splits and kinds."""
    kinds = tuple(world_plans.KINDS)
    sources = [open_corpus(config, folder, split, kinds=kinds) for split in ("train", "dev", "test")]
    return [source[i] for source in sources for i in range(len(source))]


def test_report_and_cache(data_dir):
    report = prepare_corpus(SMALL, data_dir, progress=False)
    assert report.cached and report.rejected == {} and report.warnings == {}
    records = everything(SMALL, data_dir)
    assert sum(report.accepted.values()) == len(records)
    for kind, field in world_plans.KINDS.items():
        seconds = [len(r["samples"]) / 16_000 for r in records if r["kind"] == kind]
        wanted = getattr(SMALL, field) * 3600
        assert wanted <= sum(seconds) < wanted + max(seconds)
    assert not (data_dir / "parts").exists()


def test_default_kind_is_the_sentence(data_dir):
    source = open_corpus(SMALL, data_dir, "train")
    assert set(source.kinds) == {"sentence"} and len(source) == len(source.ids) == len(source.seconds)
    assert set(open_corpus(SMALL, data_dir, "train", kinds=("dialogue",)).kinds) <= {"dialogue"}


def test_texts_fall_on_one_side_only(data_dir):
    texts = {s: {r["text"] for r in open_corpus(SMALL, data_dir, s)} for s in ("train", "dev", "test")}
    assert texts["train"] and texts["dev"] and texts["test"]
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["dev"] and not texts["dev"] & texts["test"]


def test_records_are_consistent(data_dir):
    for record in everything(SMALL, data_dir):
        total_s = len(record["samples"]) / 16_000
        start, end, ids = record["phone_start_s"], record["phone_end_s"], record["phone_ids"]
        assert record["samples"].dtype == np.int16 and record["seconds"] == pytest.approx(total_s)
        assert start[0] == 0 and end[-1] == pytest.approx(total_s) and (end > start).all()
        np.testing.assert_array_equal(start[1:], end[:-1])
        assert record["phones"] == [PHONES[i] for i in ids]
        assert record["words"] == spoken_words(record["text"])
        assert len(record["words"]) == len(record["word_start_s"]) == len(record["word_end_s"])
        assert (record["word_end_s"] > record["word_start_s"]).all()
        assert (record["word_start_s"][1:] >= record["word_end_s"][:-1] - 1e-6).all()
        assert len(record["f0_hz"]) == int(np.ceil(total_s / 0.0125 - 1e-6))
        assert np.abs(record["samples"].astype(int)).max() > 2000


def test_questions_and_dialogues_carry_what_checks_them(data_dir):
    records, world = everything(SMALL, data_dir), make_world(SMALL.seed)
    asked = [r for r in records if r["kind"] == "question_answer"]
    assert asked
    for record in asked:
        assert answer(world, record["question"]) == record["turns"][1]["answer"]
        assert record["answer"] == record["turns"][1]["text"]
    for record in (r for r in records if r["kind"] == "dialogue"):
        turns = record["turns"]
        assert len({turn["speaker"] for turn in turns}) == 2
        assert all(a["end_s"] < b["start_s"] for a, b in itertools.pairwise(turns))
        quiet = record["samples"][int(turns[0]["end_s"] * 16_000) : int(turns[1]["start_s"] * 16_000)]
        assert len(quiet) and np.abs(quiet.astype(int)).max() == 0


def test_the_samples_have_the_stated_pitch(data_dir):
    """At the stated period a signal agrees with itself, a quarter off it does not: for every speaker."""
    agreement = {}
    for record in everything(SMALL, data_dir):
        if record["kind"] == "sentence":
            agreement.setdefault(record["speaker"], []).extend(periodicity(record["samples"] / 32768, record["f0_hz"]))
    assert len(agreement) == SMALL.speakers
    for values in agreement.values():
        at, above, below = np.median(np.asarray(values), axis=0)
        assert at > 0.7 and above < at - 0.4 and below < at - 0.4


def periodicity(samples, f0, rate_hz=16_000):
    """Normalised correlation one stated period apart, and a quarter more and less, at steadily voiced frames."""
    rows = []
    for t in range(4, len(f0) - 6, 2):
        near = f0[t - 3 : t + 4]
        if near.min() > 0 and near.max() < 1.1 * near.min():
            middle = int((t + 0.5) * rate_hz / 80)
            half = rate_hz // 40
            rows.append([correlation(samples, middle, round(rate_hz / (f0[t] * k)), half) for k in (1.0, 0.8, 1.25)])
    return rows


def correlation(samples, middle, lag, half):
    a, b = samples[middle - half : middle + half], samples[middle - half + lag : middle + half + lag]
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-9))


def test_source_is_picklable_and_gives_the_same(data_dir):
    source = open_corpus(SMALL, data_dir, "train")
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1]["samples"], source[1]["samples"])
    assert copy.ids == source.ids and repr(copy) == repr(source)


KILLED = """
import json, sys
from slm_jax.core.config import from_json
from slm_jax.data.corpus import prepare_corpus
if __name__ == "__main__":
    prepare_corpus(from_json(json.loads(sys.argv[1])), sys.argv[2], progress=False)
"""


def test_killed_with_two_processes_and_resumed_with_one_gives_the_same(data_dir, tmp_path):
    """`kill -9` leaves whole parts and no workers; the next call ends with the records of an undisturbed run."""
    script, data, config = tmp_path / "killed.py", tmp_path / "data", SMALL.replace(processes=2)
    assert config.identity() == SMALL.identity()
    script.write_text(KILLED)
    arguments = [sys.executable, str(script), json.dumps(config.to_json()), str(data)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    running = subprocess.Popen(arguments, env=environment, start_new_session=True)
    try:
        wait_until(lambda: any(data.glob("parts/*/*-000000.npz")), 90)  # with two workers a later part may come first
    finally:
        running.kill()
        running.wait()
    wait_until(lambda: not group_members(running.pid), 30)
    assert not list(data.rglob("report.json"))
    left = sorted(data.glob("parts/*/*.npz"))
    assert left and all(is_part(path) for path in left)
    stamps = {path: path.stat().st_mtime_ns for path in left}
    first, _ = next(run_parts(iter([None]), fail, left[0].parent, processes=1, name="sentence"))
    assert stamps[first] == first.stat().st_mtime_ns
    prepare_corpus(SMALL, data, progress=False)
    undisturbed, resumed = everything(SMALL, data_dir), everything(SMALL, data)
    assert len(resumed) > 20
    np.testing.assert_equal(resumed, undisturbed)


def fail(job):
    """Work that must not be done again."""
    raise AssertionError(job)


def wait_until(true, seconds):
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def group_members(group):
    """Live processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def test_a_damaged_part_is_made_again(tmp_path):
    def work(job):
        return [{"id": str(job), "values": np.arange(job)}]

    list(run_parts([3, 4], work, tmp_path, processes=1))
    damaged = tmp_path / "part-000001.npz"
    damaged.write_bytes(damaged.read_bytes()[:60])
    assert not is_part(damaged)
    assert [records[0]["id"] for _, records in run_parts([3, 4], work, tmp_path, processes=1)] == ["3", "4"]
    assert is_part(damaged)


def test_a_dataset_without_its_report_is_made_again(tmp_path):
    config = WorldConfig(hours=0.002, processes=1, test_share=0.0, dev_share=0.0)
    folder = Path(prepare_corpus(config, tmp_path, progress=False).folder)
    before = open_corpus(config, tmp_path, "train")[0]["samples"]
    (folder / "report.json").unlink()
    with pytest.raises(UserError, match="not prepared"):
        open_corpus(config, tmp_path, "train")
    assert not prepare_corpus(config, tmp_path, progress=False).cached
    np.testing.assert_array_equal(open_corpus(config, tmp_path, "train")[0]["samples"], before)
    assert len(open_corpus(config, tmp_path, "test")) == 0


def test_no_tensorflow_is_imported(data_dir):
    program = (
        "import sys; from slm_jax.data.corpus import *; from slm_jax.core.config import from_json; import json;"
        "s = open_corpus(from_json(json.loads(sys.argv[1])), sys.argv[2], 'train'); s[0];"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
    )
    arguments = [json.dumps(SMALL.to_json()), str(data_dir)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def test_short_forms():
    assert parse_corpus("world") == WorldConfig()
    assert parse_corpus("world:hours=1,speakers=4,seed=2") == WorldConfig(hours=1.0, speakers=4, seed=2)
    lively = parse_corpus("world:rate_hz=24000,channels=2,split_by=text,overlap_share=0.2,styles=rate+energy")
    assert lively == WorldConfig(
        rate_hz=24_000, channels=2, split_by="text", overlap_share=0.2, styles=("rate", "energy")
    )
    assert from_json(lively.to_json()) == lively


def test_what_came_later_is_in_the_identity_only_when_it_is_used():
    """Corpora that were prepared before keep their names."""
    fields = {"type", "dev_share", "test_share", "hours", "question_hours", "dialogue_hours", "seed", "speakers",
              "slowest", "fastest"}  # fmt: skip
    assert set(WorldConfig().identity()) == fields
    assert set(WorldConfig(styles=("rate",), channels=2).identity()) == fields | {"styles", "channels"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wrld", "did you mean 'world'"),
        ("world:hour=1", "did you mean 'hours'"),
        ("world:hours=x", "is a number"),
        ("world:hours", "name=value"),
        ("world:hours=-1", "hours is -1.0"),
        ("world:hours=nan", "hours is nan"),
        ("world:dialogue_hours=1", "a dialogue takes two"),
        ("world:slowest=2", "slowest is 2.0"),
        ("world:dev_share=0.5,test_share=0.5", "something must be left"),
        ("world:instruction_hours=-1", "instruction_hours is -1.0"),
        ("world:channels=3", "channels is 3"),
        ("world:rate_hz=1000", "rate_hz is 1000"),
        ("world:split_by=age", "split_by is 'age'"),
        ("world:overlap_share=2", "overlap_share is 2.0"),
        ("world:shortest_pause_s=1", "shortest_pause_s is 1.0"),
        ("world:styles=rate+mood", "styles is .*mood"),
        ("world:dialogue_hours=1,speakers=3,split_by=speaker", "dialogues split by speaker take four"),
        ("manifest:", "manifest:PATH"),
        ("manifest:nowhere.jsonl", "no such file"),
        ("folder:nowhere", "no such folder"),
    ],
)
def test_wrong_specs_name_value_and_rule(spec, message):
    with pytest.raises(UserError, match=message):
        parse_corpus(spec)


def test_unknown_split_and_unprepared_corpus(tmp_path):
    with pytest.raises(UserError, match="split is 'trian'"):
        open_corpus(SMALL, tmp_path, "trian")
    with pytest.raises(UserError, match="not prepared"):
        open_corpus(SMALL, tmp_path, "train")
