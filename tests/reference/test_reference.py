"""The reference system goes through every verb and knows no units; nobody outside of this folder knows it."""

import json
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli import evaluate, generate
from slm_jax.core.contracts import Opens, Session, System
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.serving.rooms import Room
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, read_run_config
from tests.artifacts import with_listener

RATE_HZ = 16_000


@pytest.fixture(scope="session")
def places(made_once):
    """(run folder, folder of data, config file), the run trained for a few steps of every stage."""
    folder = made_once("listener", with_listener)
    return folder / "run", folder / "data", folder / "config.py"


@pytest.fixture(scope="session")
def system(places):
    run = RunFolder(places[0])
    config = read_run_config(run)
    return config.load(StageContext(run, config.corpus, places[1]))


def voice(seconds, seed=0):
    """Something like speech: a buzz that rises."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    rng = np.random.default_rng(seed)
    wave = sum(np.sin(2 * np.pi * k * (110 + 40 * rng.random() + 20 * time) * time) / k for k in range(1, 8))
    return (0.1 * wave * np.sin(np.pi * time / time[-1])).astype(np.float32)


def asked(seconds, seed=0, text="What is said?"):
    return (Message("user", (Speech(voice(seconds, seed), RATE_HZ), Text(text))),)


def test_every_stage_ran_and_only_what_is_trained_is_in_checkpoints(places):
    done = {path.parent.name for path in (places[0] / "stages").glob("*/done.json")}
    assert done == {"encoder", "answers", "duet"}
    saved = [path.name for path in (places[0] / "stages" / "answers" / "checkpoints" / "00000004").iterdir()]
    assert {"params", "collections"} <= set(saved)
    lines = [json.loads(line) for line in (places[0] / "stages" / "answers" / "metrics.jsonl").read_text().splitlines()]
    assert {"answer", "alignment", "loss"} <= set(lines[0])
    assert any("evaluate/nats_per_byte" in line for line in lines)
    size = sum(path.stat().st_size for path in (places[0] / "stages" / "answers" / "checkpoints").rglob("*"))
    assert size < 1_500_000, "frozen parts enter no checkpoint"


def test_it_keeps_the_contracts(system):
    assert isinstance(system, System) and isinstance(system, Opens)
    assert isinstance(system.open(1), Session)


def test_it_answers_speech_and_text(places, tmp_path):
    wav = tmp_path / "a.wav"
    write_wav(wav, voice(1.0), RATE_HZ)
    options = ["--count", "1", "--out", str(tmp_path / "said")]
    (made,) = generate.main([str(places[0]), "--prompts", str(wav), "--text", "What is said?", *options])["made"]
    assert Path(made["file"]).suffix == ".txt"
    assert Path(made["file"]).read_text() == made["text"] + "\n"
    (only_text,) = generate.main([str(places[0]), "--text", "What is said?", *options])["made"]
    assert only_text["text"] != made["text"], "the speech has an effect"
    held_out = generate.main([str(places[0]), "--count", "2", "--out", str(tmp_path / "own")])["made"]
    assert len(held_out) == 2


def test_evaluate_writes_the_report(places):
    evaluate.main([str(places[0]), "--utterances", "2"])
    assert (places[0] / "report.html").is_file()


def test_a_room_serves_its_session(system):
    session = system.open(2)
    with Room(session) as room:
        seats = [room.take(lambda: None) for _ in range(2)]
        frames = [seat.hear(voice(seconds)) for seat, seconds in zip(seats, (0.5, 0.3), strict=True)]
        said: list = [[], []]
        while [len(one) for one in said] != frames:
            for seat, kept in zip(seats, said, strict=True):
                kept += seat.fetch()
            time.sleep(0.005)
    assert frames == [6, 3] and all(one.samples.shape == (session.hop,) for kept in said for one in kept)


def test_a_session_is_the_same_offline(system):
    """Rows that start and rest apart give what they give alone."""
    hop = system.open(1).hop
    sound = voice(12 * hop / RATE_HZ).reshape(12, hop)
    alone = system.open(2, seed=5)
    pushed = [alone.push(np.stack([block, block]), np.array([True, True])) for block in sound]
    apart = system.open(2, seed=5)
    got = []
    for t in range(16):
        active = np.array([t < 12, t >= 4])
        blocks = np.stack([sound[min(t, 11)], sound[min(max(t - 4, 0), 11)]])
        got.append(apart.push(blocks, active))
    for row, shift in ((0, 0), (1, 4)):
        mine = np.stack([got[t + shift].levels[row] for t in range(12)])
        np.testing.assert_array_equal(mine, np.stack([one.levels[row] for one in pushed]))
        heard = np.concatenate([got[t + shift].samples[row] for t in range(12)])
        np.testing.assert_allclose(heard, np.concatenate([one.samples[row] for one in pushed]), atol=1e-6)
    assert got[0].levels[1].tolist() == [-1, -1, -1] and not got[0].samples[1].any()


def test_bad_input_is_one_clear_error(system):
    for speech, word in (
        (np.zeros(0, np.float32), "something to hear"),
        (np.full(16_000, np.nan, np.float32), "no NaN"),
    ):
        with pytest.raises(UserError, match=word):
            system.respond([(Message("user", (Speech(speech, RATE_HZ),)),)], None, jax.random.key(0))
    with pytest.raises(UserError, match=r"samples is \(1, 3\)"):
        system.open(1).push(np.zeros((1, 3)), np.array([True]))
