"""The pages under `docs/` as a reader would work through them: every block, as written, in its order."""

import contextlib
import os
import re
import shlex
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from slm_jax.audio.files import read_audio, write_wav
from slm_jax.cli.main import main
from tests.shapes import WHISPER
from tests.text_lm_folder import write_text_lm
from tests.whisper_folder import write_whisper

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.(?:py|jsonl))\n")
RATE = 16_000
PAGES = ["systems_and_judges", "corpora", "speech_aware", "codecs", "schemes", "prosody", "transcribing"]
PAGES += ["speech_lm_metrics", "pairs", "cascades", "layouts", "duplex", "expressive_tokens", "serve", "one_stream"]
PAGES += ["data_at_scale", "alignment", "voices_and_instructions", "bestow"]
LEAST = {"schemes": 4, "prosody": 3, "cascades": 4, "layouts": 3, "expressive_tokens": 4, "alignment": 4, "bestow": 4}
"""Blocks of a page that has fewer than five."""
BASE = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "absent")) / "whisper-base"
BOOK = Path(os.environ.get("SLM_JAX_REAL_SPEECH", "absent")) / "librivox"


def hummed(seconds, seed):
    """A gliding hum."""
    steps = np.repeat(np.random.default_rng(seed).uniform(0.02, 0.4, 10), round(seconds * RATE / 10))
    return 0.1 * np.sin(np.cumsum(steps))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the recordings that the pages take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_wav(tmp_path / "hello.wav", hummed(1.0, 0), RATE)
    for number in range(6):
        write_wav(tmp_path / "speech" / f"take_{number}.wav", hummed(1.0, number), RATE)
    for name, seconds in {"question": 1.5, "answer": 1.0}.items():
        write_wav(tmp_path / "clips" / f"{name}.wav", hummed(seconds, 7), RATE)
    sides = np.stack([hummed(2.0, 8), hummed(2.0, 9)], axis=1)
    write_wav(tmp_path / "calls" / "1.wav", sides, RATE)
    yield tmp_path
    for name in ("loudness", "hears", "aligned"):
        sys.modules.pop(name, None)


def carry_out(page, capsys):
    """Every block of a page; how many there are, and what the reader has at the end."""
    names: dict = {"__name__": "reader"}
    for number, (language, text) in enumerate(BLOCK.findall((DOCS / f"{page}.md").read_text("utf-8")), start=1):
        if file := FILE.match(text):
            body = text if language == "python" else text[file.end() :]
            Path(file[1]).write_text(body, encoding="utf-8")
        elif language == "bash":
            for line in text.splitlines():
                program, switch, package, *argv = shlex.split(line, comments=True)
                assert (program, switch, package) == ("python", "-m", "slm_jax")
                assert main(argv) == 0, f"block {number}: {line}\n{capsys.readouterr().err}"
        else:
            assert language == "python"
            exec(compile(text, f"{page}, block {number}", "exec"), names)
    return number, names


@pytest.mark.parametrize(
    "page",
    [
        *("systems_and_judges", "corpora", "pairs", "one_stream"),
        *(pytest.param(page, marks=pytest.mark.slow(seconds=60)) for page in ("speech_aware", "codecs")),
        *(pytest.param(page, marks=pytest.mark.slow(seconds=40)) for page in ("schemes", "layouts", "duplex")),
        *(pytest.param(page, marks=pytest.mark.slow(seconds=40)) for page in ("prosody", "cascades")),
        *(pytest.param(page, marks=pytest.mark.slow(seconds=20)) for page in ("expressive_tokens", "data_at_scale")),
        pytest.param("bestow", marks=pytest.mark.slow(seconds=20)),
        pytest.param("alignment", marks=pytest.mark.slow(seconds=60)),
    ],
)
def test_every_block_runs_as_written(page, desk, capsys):
    assert carry_out(page, capsys)[0] >= LEAST.get(page, 5)


def test_transcribing_runs_as_written(desk, capsys):
    """With a small Whisper on drawn weights in the place of a real one."""
    write_whisper(desk / "whisper-base", WHISPER.replace(decoder=WHISPER.decoder.replace(max_positions=104)))
    write_wav(desk / "interview.wav", hummed(0.8, 10), RATE)
    number, names = carry_out("transcribing", capsys)
    assert number >= 8 and len(names["said"].windows) == 3 and len(names["found"]) == 6


@pytest.mark.slow(seconds=20)
def test_metrics_run_as_written(desk, capsys):
    """With a small language model on drawn weights in the place of a real one."""
    write_text_lm(desk / "text-lm")
    number, names = carry_out("speech_lm_metrics", capsys)
    assert number >= 7 and (names["found"].texts, names["found"].missing) == (4, 1)
    assert (names["scores"].within, names["scores"].across) == (0.0, 0.0)


@pytest.mark.slow(seconds=40)
def test_serve_runs_as_written(desk, capsys):
    """Somebody presses Ctrl-C as soon as the page is there."""
    pytest.importorskip("openai", reason="the published client is not installed: pip install 'openai[realtime]'")
    asked = threading.Thread(target=ends_what_is_served, args=("http://127.0.0.1:8765/about",), daemon=True)
    asked.start()
    number, names = carry_out("serve", capsys)
    assert number == 5 and not asked.is_alive()
    assert len(names["heard"]) == len(names["said"]) * names["said"][0].samples.size > 14_000
    assert 24_000 <= len(names["echo"]) < 28_000 and len(names["written"].split()) == 10


def ends_what_is_served(address):
    """Asks until there is an answer, then interrupts this process."""
    for _ in range(1200):
        with contextlib.suppress(OSError), urllib.request.urlopen(address) as answer:
            assert answer.status == 200
            break
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow(seconds=120)
@pytest.mark.skipif(not (BASE.is_dir() and BOOK.is_dir()), reason="real weights and recordings are not there")
def test_transcribing_runs_on_real_weights(desk, capsys):
    (desk / "whisper-base").symlink_to(BASE)
    clips = [read_audio(path) for path in sorted(BOOK.glob("audio/*.flac"))]
    write_wav(desk / "interview.wav", np.concatenate(clips * 2), RATE)
    write_wav(desk / "speech" / "take_0.wav", clips[4], RATE)
    _, names = carry_out("transcribing", capsys)
    assert len(names["said"].windows) == 2 and "not an ill-disposed young man" in names["said"].text
    wanted = "He might even have been made amiable himself."
    assert names["short"].text == names["again"].text == names["quick"].text == wanted


@pytest.mark.parametrize("page", PAGES)
def test_pages_that_are_linked_exist(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (DOCS / f"{page}.md").read_text("utf-8"))
    assert links and all((DOCS / link).exists() for link in links)
