"""The verbs as a person types them: mistakes are one line, exit code 2, before any work starts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli.main import main
from slm_jax.cli.options import parse_with_config
from slm_jax.cli.train import TrainOptions, profiled

SMALLEST = str(Path(__file__).parents[1] / "end_to_end" / "smallest.py")


def typed(capsys, *argv):
    """Exit code and what was printed."""
    code = main(list(argv))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "configs/speech/gslm_tinny.py", "--workdir", "w"], "gslm_tiny.py"),
        (["train", SMALLEST], "--workdir is missing"),
        (["train", SMALLEST, "--workdir", "w", "--hubert.trian.steps", "3"], "--stages.hubert.train.steps"),
        (["train", SMALLEST, "--workdir", "w", "--hubert.train.steps", "many"], "many"),
        (["train", SMALLEST, "--workdir", "w", "--hubert.train.steps", "0"], "must be at least 1"),
        (["train", SMALLEST, "--workdir", "w", "--hosts", "all"], "'auto'"),
        (["train", SMALLEST, "--workdir", "w", "--hosts", "auto", "--index", "0"], "leave one of them out"),
        (["train", SMALLEST, "--workdir", "w", "--coordinator", "a:1"], "--processes and --index missing"),
        (["train", SMALLEST, "--dry-run", "--hosts", "auto"], "one host"),
        (["train", SMALLEST, "--workdir", "w", "--profile", "15"], "10:15"),
        (["prepare", "word"], "world"),
        (["prepare", "folder:nowhere-at-all"], "nowhere-at-all"),
        (["generate", "nowhere-at-all"], "run.json"),
        (["evaluate", "nowhere-at-all"], "run.json"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(argv, message, capsys, tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(root / "configs")
    code, _, err = typed(capsys, *argv)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_one_window_is_profiled_in_every_stage_that_trains_by_gradient():
    run = profiled(parse_with_config(TrainOptions, [SMALLEST], "train")[1], "4:7")
    windows = {stage.name: stage.train.profile for stage in run.stages if hasattr(stage, "train")}
    assert {"hubert", "lm", "vocoder"} <= windows.keys() and set(windows.values()) == {"4:7"}


def test_prepare_accounts_for_every_file(capsys, tmp_path):
    for number in range(8):
        tone = 0.1 * np.sin(np.arange(16_000) * 0.01 * (number + 3))
        write_wav(tmp_path / "speech" / f"{number}.wav", tone, 16_000)
    (tmp_path / "speech" / "empty.wav").write_bytes(b"")
    argv = ["prepare", f"folder:{tmp_path / 'speech'}", "--data-dir", str(tmp_path / "data")]
    code, out, _ = typed(capsys, *argv)
    assert code == 0
    assert "rejected: 1" in out
    assert "empty_file" in out
    assert "was there already" in typed(capsys, *argv)[1]


def test_json_is_alone_on_stdout(tmp_path):
    write_wav(tmp_path / "speech" / "a.wav", 0.1 * np.sin(np.arange(16_000) * 0.05), 16_000)
    command = [sys.executable, "-m", "slm_jax", "prepare", f"folder:{tmp_path / 'speech'}", "--json"]
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path / "data")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["accepted"].values()) == 1
