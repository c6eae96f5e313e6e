"""The frame of the command line, seen through `doctor`."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from slm_jax.cli import doctor
from slm_jax.cli.console import run_verb, table
from slm_jax.cli.main import main, verbs
from slm_jax.core.errors import UserError

ROOT = Path(__file__).parents[2]


def run_process(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_every_verb_without_importing_jax():
    code = "import sys; from slm_jax.cli.main import main; main(['--help']); sys.exit('jax' in sys.modules)"
    done = run_process("-c", code)
    assert done.returncode == 0, done.stderr
    for name, line in verbs().items():
        assert line.endswith("."), name
        assert line in done.stdout


def test_json_is_alone_on_stdout():
    done = run_process("-m", "slm_jax", "doctor", "--json")
    found = json.loads(done.stdout)
    assert found["cores"] >= 1
    assert found["packages"]["jax"]
    assert "compile cache" in done.stderr


def test_verbs_come_in_the_order_of_use(tmp_path):
    for name in ("train", "doctor", "demo", "ask"):
        (tmp_path / f"{name}.py").write_text(f'"""Do {name}."""\ndef main(argv): ...\n')
    (tmp_path / "frame.py").write_text('"""No verb."""\n')
    assert verbs(tmp_path) == {name: f"Do {name}." for name in ("demo", "train", "doctor", "ask")}


def test_unknown_verb_is_exit_code_2_with_the_nearest(capsys):
    assert main(["docter"]) == 2
    assert "unknown verb 'docter' (did you mean 'doctor'?)" in capsys.readouterr().err


def raising(error: BaseException):
    def verb(argv):
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UserError("steps is 0: must be positive"), 2, "error: steps is 0: must be positive\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device ("),
        (SystemExit(3), 3, ""),
    ],
)
def test_ends_of_a_verb(error, code, shown, capsys, monkeypatch):
    monkeypatch.delenv("SLM_JAX_TRACEBACK", raising=False)
    assert run_verb(raising(error), []) == code
    printed = capsys.readouterr().err
    assert printed.startswith(shown)
    assert "Traceback" not in printed


def test_a_closed_pipe_ends_quietly():
    verb = "lambda _: print(sys.stdin.read() + 'x')"
    code = f"import sys; from slm_jax.cli.console import run_verb; sys.exit(run_verb({verb}, []))"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as done:
        done.stdout.close()
        done.stdin.close()  # the verb waits for this, so its output comes when nobody reads any more
        assert done.stderr.read() == b""
    assert done.returncode == 141


def test_traceback_on_request(capsys, monkeypatch):
    monkeypatch.setenv("SLM_JAX_TRACEBACK", "1")
    assert run_verb(raising(UserError("no")), []) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_verb(raising(ZeroDivisionError()), [])


def test_what_a_library_prints_to_the_descriptor_goes_to_stderr(capfd):
    def verb(argv):
        os.write(1, b"from C++\n")
        print("for people")
        return {"loss": 1.5}

    assert run_verb(verb, ["--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"loss": 1.5}
    assert "from C++" in err


def test_table_aligns_numbers_to_the_right():
    rows = [("lm", 5, 0.123456), ("vocoder", 10, 2.0)]
    assert table(rows, ("stage", "steps", "loss")).splitlines() == [
        "stage    steps    loss",
        "-------  -----  ------",
        "lm           5  0.1235",
        "vocoder     10       2",
    ]


def test_doctor_knows_the_extras_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras)


def test_missing_extra_names_the_command():
    assert doctor.missing_modules(("json", "no_such_module")) == ["no_such_module"]
    assert doctor.advice("tpu", ["libtpu"]) == "missing libtpu: pip install -e '.[tpu]'"
    assert doctor.advice("tpu", []) == "installed"


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path):
    assert doctor.nearest_folder(tmp_path / "a" / "b") == tmp_path


def test_compile_cache_can_be_off(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    assert doctor.compile_cache().startswith("off")
