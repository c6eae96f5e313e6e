"""`serve` as a person types it: it says where it is, and Ctrl-C ends it well."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from slm_jax.cli import serve
from slm_jax.cli.main import main
from slm_jax.serving.replies import Replies
from slm_jax.serving.rooms import Room
from tests.artifacts import ROOT, with_codec
from tests.serving.talking import connected, tone


@pytest.fixture(scope="module")
def run(made_once):
    return made_once("codec", with_codec) / "run"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere-at-all"], "run.json"),
        (["nowhere-at-all", "--seats", "0"], "--seats is 0: must be at least 1"),
        (["nowhere-at-all", "--together", "0"], "--together is 0"),
        (["nowhere-at-all", "--minutes", "-1"], "--minutes is -1.0: must be above 0"),
        (["nowhere-at-all", "--port", "70000"], "--port is 70000"),
        (["nowhere-at-all", "--prot", "1"], "did you mean '--port'"),
    ],
)
def test_a_mistake_is_one_line(argv, message, capsys):
    assert main(["serve", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_without_aiohttp_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    assert main(["serve", "nowhere-at-all"]) == 2
    assert "pip install 'slm_jax[serve]'" in capsys.readouterr().err


@pytest.mark.slow(seconds=30)
def test_a_system_that_streams_has_an_open_microphone_unless_one_wants_turns(run):
    options = serve.ServeOptions(run=run, seats=2)
    name, system = serve.opened(options, ["--books", "1"])
    assert name == "hums" and system.decoding.books == 1
    room = serve.engine_of(system, options)
    assert isinstance(room, Room) and room.session.batch == 2
    assert isinstance(serve.engine_of(system, serve.ServeOptions(run=run, push_to_talk=True)), Replies)


@pytest.mark.slow(seconds=30)
def test_it_is_there_until_ctrl_c(run):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "slm_jax", "serve", str(run), "--port", "0", "--seats", "2", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, text=True, **pipes)
    try:
        line = next(line for line in process.stderr if "Ctrl-C" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        with urllib.request.urlopen(f"{address}/about") as answer:
            assert json.load(answer)["slm_jax"]["microphone"] == "open"

        async def talk():
            async with connected(address) as client:
                await client.say(tone(0.5), piece=2400)
                await client.send("input_audio_buffer.commit")
                await client.until("response.done")
                process.send_signal(signal.SIGINT)
                return len(client.samples()), (await client.error())["code"]

        heard, end = asyncio.run(asyncio.wait_for(talk(), 120))
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in err
    assert heard >= 0.48 * 24_000 and end == "server_closed"
    result = json.loads(out)
    assert result["address"] == address and result["pushes"] == result["count"] == 7 and result["model_p99"] > 0
