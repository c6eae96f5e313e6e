"""Hours of the world through the pipelines of two workers, killed twice: are the shards those of an undisturbed run?

    python experiments/data_at_scale/run.py runs/data_at_scale --hours 20
    python experiments/data_at_scale/run.py runs/data_at_scale --hours 20 --beam .venv-beam/bin/python --only tokens

Prepares `world:hours=H,speakers=8`, trains a small tokenizer (100 units of MFCC on the first minutes), and makes tokens
(`tokenize`) and examples of tasks (`prepare --tasks transcription question instruction`, one of an item) in two
folders each: one in one go, the other by a process that is killed, with whatever it started, once a third and once two
thirds of the shards are there. Then the bytes of all files are compared. Leaves `figures.json` beside this file: hours,
seconds of wall clock and of CPU, shards at every kill, whether the bytes are the same.
`--beam`: the Python of an environment with Apache Beam (`make beam` makes one), which runs the same with
`--runner direct`.
"""

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
UNITS = HERE / "units.py"
WORKERS = 2
SPLITS = "speakers=8,dev_share=0.02,test_share=0.03"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--hours", type=float, default=20.0)
    parser.add_argument("--beam", type=Path, help="Python with Apache Beam")
    parser.add_argument("--only", choices=("tokens", "tasks"), help="one of the two pipelines")
    parser.add_argument("--per-shard", type=int, default=256)
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    corpus, data = f"world:hours={options.hours:g},{SPLITS}", options.workdir / "data"
    timed(sys.executable, ["prepare", corpus, "--data-dir", str(data), "--json"], options.workdir / "prepare")
    run = options.workdir / "units"
    timed(sys.executable, ["train", str(UNITS), "--workdir", str(run), "--data-dir", str(data)], run)
    shared = ["--data-dir", str(data), "--per-shard", str(options.per_shard), "--workers", str(WORKERS)]
    verbs = {
        "tokens": ["tokenize", corpus, str(run), *shared],
        "tasks": ["prepare", corpus, "--tasks", "transcription", "question", "instruction", "--per-item", "1", *shared],
    }
    python, who = (options.beam, "beam direct") if options.beam else (Path(sys.executable), "workers")
    figures = json.loads((HERE / "figures.json").read_text()) if (HERE / "figures.json").is_file() else {}
    for name, verb in verbs.items():
        if options.only in (None, name):
            more = ["--runner", "direct"] if options.beam else []
            place = options.workdir / f"{name}_{who.replace(' ', '_')}_{options.hours:g}"
            told = compared(str(python), [*verb, *more], place)
            figures[f"{name}, {who}, {options.hours:g} h"] = {"hours": options.hours, "workers": WORKERS, **told}
            (HERE / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def compared(python: str, verb: list[str], place: Path) -> dict[str, Any]:
    """Both ways into `place/whole` and `place/killed`, and whether their bytes are the same."""
    whole, killed = place / "whole", place / "killed"
    place.mkdir(parents=True, exist_ok=True)
    took = timed(python, [*verb, "--out", str(whole)], place / "whole_log")
    shards = len(accounts(whole))
    kills = [kill(python, [*verb, "--out", str(killed)], killed, shards * third // 3) for third in (1, 2)]
    timed(python, [*verb, "--out", str(killed)], place / "killed_log")
    first, second = bytes_of(whole), bytes_of(killed)
    same = first == second
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    return {"shards": shards, "shards_at_kills": kills, "same_bytes": same, "files": len(first), "bytes": size, **took}


def timed(python: str, argv: list[str], log: Path) -> dict[str, float]:
    """Run a verb to its end; seconds of wall clock, and of CPU with all that it started."""
    start, before = time.monotonic(), cpu_s()
    with log.with_suffix(".log").open("a") as file:
        done = launched(python, argv, file).wait()
    if done:
        raise SystemExit(f"{argv[0]} ended with {done}: see {log.with_suffix('.log')}")
    return {"seconds": round(time.monotonic() - start, 1), "cpu_seconds": round(cpu_s() - before, 1)}


def kill(python: str, argv: list[str], folder: Path, shards: int) -> int:
    """Kill the verb and all that it started once so many shards are there; how many were."""
    with folder.with_suffix(".log").open("a") as file:
        process = launched(python, argv, file)
        while len(accounts(folder)) < shards:
            if process.poll() is not None:
                raise SystemExit(f"it ended by itself with {len(accounts(folder))} shards: see {file.name}")
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return len(accounts(folder))


def launched(python: str, argv: list[str], file: Any) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "slm_jax", *argv]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)


def accounts(folder: Path) -> list[Path]:
    """Of the shards that are there."""
    return list(folder.glob("accounts/*/*.json"))


def bytes_of(folder: Path) -> dict[str, str]:
    """Hashes of all files, by relative path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cpu_s() -> float:
    """Of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
