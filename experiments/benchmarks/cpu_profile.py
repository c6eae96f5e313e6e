"""Where the CPU time of one side of a `bench` case goes: `python cpu_profile.py CASE ours|reference [--runs 3]`.

Samples the running process with Linux `perf` after two warm-up runs and sums the samples by what the code is. Prints
JSON: seconds on the clock and of all cores per run, and the percentage of every kind.
"""

import argparse
import collections
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

KINDS = {
    "products: XLA's YNN": ("ynn::dot_", "ynn::run_dot"),
    "products: packing for Eigen": ("gemm_pack",),
    "products: MKL": ("mkl_blas",),
    "elementwise and reductions: YNN": ("ynn::",),
    "sine and cosine": ("sincos",),
    "fused Adam": ("adam",),
    "attention": ("flash_attention",),
    "elementwise: vectorised loops of PyTorch": ("VectorizedLoop", "Sleef", "vectorized"),
    "memory: malloc and copies": ("malloc", "_int_", "memmove", "memset", "memcpy"),
    "threads that wait": ("libgomp",),
    "kernel": ("[kernel",),
}
"""Kind -> parts of a symbol or library, in the order in which they are tried."""
SAME_CODE_BYTES = 1024
"""Samples of compiled code that lie closer together than this belong to one kernel."""


def main() -> None:
    arguments = parsed()
    run = side(arguments.case, arguments.side)
    run(), run()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "perf.data"
        wall, cores = sampled(run, arguments.runs, record)
        kinds = shares(record)
    row = {"case": arguments.case, "side": arguments.side, "runs": arguments.runs}
    print(json.dumps(row | {"seconds": round(wall, 2), "cpu_seconds": round(cores, 2), "percent": kinds}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("side", choices=("ours", "reference"))
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


def side(case: str, which: str) -> Callable[[], object]:
    """One run of that side, with memory kept as `bench` does."""
    from slm_jax.cli.memory import keep_memory

    keep_memory()
    from slm_jax.workbench.bench import BenchSettings
    from slm_jax.workbench.bench_cases import CASES

    job = CASES[case](BenchSettings())
    return job.ours if which == "ours" else next(iter(job.references.values()))


def sampled(run: Callable[[], object], runs: int, record: Path) -> tuple[float, float]:
    """Seconds per run on the clock and of all cores, while `perf` writes to `record`."""
    perf = subprocess.Popen(["perf", "record", "-q", "-F", "499", "-o", record, "-p", str(os.getpid())])
    time.sleep(1)
    wall, cores = time.perf_counter(), time.process_time()
    for _ in range(runs):
        run()
    found = (time.perf_counter() - wall) / runs, (time.process_time() - cores) / runs
    perf.send_signal(signal.SIGINT)
    perf.wait()
    return found


def shares(record: Path) -> dict[str, float]:
    """Percentage of the samples by kind, the largest first; compiled code by kernel."""
    script = ["perf", "script", "-i", str(record), "-F", "ip,sym,dso"]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    counts: collections.Counter[str] = collections.Counter()
    compiled = []
    for line in filter(str.strip, lines):
        if "perf-" in line:
            compiled.append(int(line.split()[0], 16))
        else:
            counts[kind_of(line)] += 1
    for size, name in zip(sorted(kernels(compiled), reverse=True), ("largest", "second"), strict=False):
        counts[f"compiled code: {name} kernel"] = size
    named = sum(counts[f"compiled code: {name} kernel"] for name in ("largest", "second"))
    counts["compiled code: all others"] = len(compiled) - named
    total = sum(counts.values())
    return {kind: round(100 * count / total, 1) for kind, count in counts.most_common() if count}


def kind_of(line: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in line for part in parts)), "other")


def kernels(addresses: list[int]) -> list[int]:
    """Samples of every kernel of compiled code, which has no names."""
    sizes, last = [0], None
    for address in sorted(addresses):
        if last is not None and address - last > SAME_CODE_BYTES:
            sizes.append(0)
        sizes[-1] += 1
        last = address
    return sizes


if __name__ == "__main__":
    main()
