"""`plan` as a user runs it."""

import importlib.util
import json

import pytest

from slm_jax.cli import main as program
from slm_jax.cli.plan import main
from slm_jax.core.errors import UserError

CONFIG = "tests/workbench/small_plan.py"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed, which compiles for TPUs"
)


@needs_libtpu
def test_a_small_config_is_planned_in_seconds(capfd, tmp_path):
    arguments = ["plan", CONFIG, "--topology", "v5e:2x2", "--json", "--out", str(tmp_path), "--lm.batches.batch", "16"]
    assert program.main(arguments) == 0
    out, said = capfd.readouterr()
    told = json.loads(out)
    assert told["fits"] is True and told["stage"] == "lm" and told["settings"]["batch"] == 16
    for key in ("parameters", "flops_per_step", "step_seconds_bound", "mfu_bound", "audio_hours_per_second"):
        assert told[key] > 0
    assert set(told["collective_bytes"]) >= {"all-gather", "reduce-scatter", "all-reduce"}
    assert json.loads((tmp_path / "plan.json").read_text()) == told
    assert "at best" in (tmp_path / "plan.txt").read_text()
    assert "lm: compiled in" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([CONFIG, "--topology", "v5e:2x2x2"], "a slice of v5e has 2 axes"),
        ([CONFIG, "--topology", "v5e:2x2", "--stage", "lmm"], "stage 'lmm' is not in this run .did you mean 'lm'"),
        ([CONFIG, "--topology", "v5e:2x2", "--stage", "units"], "trains nothing by gradient"),
        ([CONFIG], "topology"),
        (["nowhere.py", "--topology", "v5e:2x2"], "does not exist"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, told):
    with pytest.raises(UserError, match=told) as error:
        main(arguments)
    assert "\n" not in str(error.value)


def test_help_shows_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for option in ("--topology", "--stage", "--fit", "--out", "--json"):
        assert option in text
