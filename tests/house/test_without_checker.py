"""Users have no run-time type checker: at the public borders they get one clear error all the same."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import jax
import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.model import load
from tests.serving.drawn import drawn_unit_speech_lm

system, key, short = drawn_unit_speech_lm(), jax.random.key(0), SamplingConfig(max_new=4)
row, mask = np.zeros((1, 4), np.int32), np.ones((1, 4), bool)
made = lambda prompts, mask, key=key: generate(system.lm, system.lm_params, prompts, mask, key, short)
for act, word in (
    (lambda: Speech([0.0, 0.1], 16_000), "NumPy array"),
    (lambda: Speech(np.zeros((2, 3), np.float32), 16_000), "one channel"),
    (lambda: Speech(np.zeros(3, np.int16), 16_000), "floating point"),
    (lambda: Speech(np.zeros(3, np.float32), 0), "samples per second"),
    (lambda: system.respond(Message("user", (Text("a"),)), None, key), "a list of tuples"),
    (lambda: system.respond([(Message("user", (Text("a"),)),)], None, key), "reads speech only"),
    (lambda: system.encode([np.zeros((2, 3), np.float32)]), "one channel"),
    (lambda: system.encode([np.full(16_000, np.nan, np.float32)]), "no NaN"),
    (lambda: made(row[0], mask), "prompts is"),
    (lambda: made(row, mask[:, :3]), "prompts is"),
    (lambda: made(row + 10_000, mask), "must lie in"),
    (lambda: made(row, mask, np.zeros(2, np.uint32)), "key"),
    (lambda: load("nowhere"), "does not exist"),
    (lambda: load("nowhere", dtype="float99"), "must be one of"),
):
    try:
        act()
    except UserError as error:
        assert word in str(error) and "\\n" not in str(error), error
    else:
        raise AssertionError(word)
print("clear")
"""


def test_wrong_rank_dtype_and_rate_are_one_clear_error():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "clear", done.stderr[-2000:]
