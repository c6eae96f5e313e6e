"""Plans of every full-size config, and the weak-scaling table, by the TPU compiler on a CPU.

    python experiments/tpu_plans/make_plans.py [NAME ...] [--list] [--table] [--predict]

One JSON file per plan in `plans/` beside this file; a plan whose file is there is not made again. Each takes minutes.
With `--table` nothing is planned and the tables of README.md are written anew from the files. `--predict` puts what the
memory model says today of each plan into its file, and compiles nothing; `tries` keeps what it said then.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PLANS = HERE / "plans"
V5E, V5P = "v5e:16x16", "v5p:4x4x4"
SCALING = {8: "v5p:2x2x2", 64: "v5p:4x4x4", 256: "v5p:4x8x8", 1024: "v5p:8x8x16"}
ROWS = 8
"""Rows of 1,024 tokens on each chip in the weak-scaling plans."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One call of `plan`."""

    name: str
    config: str
    stage: str
    topology: str
    options: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where its JSON is kept."""
        return PLANS / f"{self.name}.json"

    @property
    def command(self) -> list[str]:
        """The arguments after `python`."""
        where = ["--stage", self.stage, "--topology", self.topology]
        return ["-m", "slm_jax", "plan", f"configs/{self.config}.py", *where, *self.options, "--json"]


def half(field: str) -> tuple[str, ...]:
    """Compute in bfloat16."""
    return (f"--{field}.dtype", "bfloat16")


def jobs() -> list[Job]:
    """Every plan that is kept, those that compile longest last."""
    made = [
        Job(f"{name}_{topology.partition(':')[0]}", f"speech/{config}", stage, topology, ("--fit", *options))
        for name, config, stage, options in (
            ("gslm_durations", "gslm_published", "durations", ()),
            ("gslm_lm", "gslm_published", "lm", half("lm.model")),
            ("gslm_hubert_base", "gslm_published", "hubert_1", half("hubert_1.model.encoder")),
            ("hubert_large", "hubert_large", "hubert_large", half("hubert_large.model.encoder")),
            ("twist_350m", "twist_350m", "lm", ()),
            ("twist_1_3b", "twist_1_3b", "lm", ()),
            ("twist_7b", "twist_7b", "lm", ()),
            ("gslm_vocoder", "gslm_published", "vocoder", ()),
        )
        for topology in (V5E, V5P)
    ]
    prosodic = [
        Job(f"pgslm_{size}_v5e", f"speech/pgslm_{size}", "lm", "v5e:4x8", ("--fit", *half("lm.model.body")))
        for size in ("published", "continuous")
    ]
    cascaded = [
        Job(f"audiolm_{stage}_v5e", "speech/audiolm_published", stage, V5E, ("--fit", *half(f"{stage}.model")))
        for stage in ("semantic", "coarse", "fine")
    ]
    scaling = [scaled(size, chips) for size in ("1_3b", "7b") for chips in SCALING]
    return [*made[:-2], *prosodic, *cascaded, *scaling, *made[-2:], *hearing(), *in_one_stream(), *coding()]


def hearing() -> list[Job]:
    """The stages of speech-aware text LMs in which most is trained, with the published batch."""
    stages = {
        "wavprompt_base": "answers",
        "universlu_medium": "specifiers",
        "discrete_slu_7b": "answers",
        "qwen2_audio": "pretraining",
        "slm_13b": "answers",
        "salmonn_13b": "pretraining",
    }
    made = [Job(f"{name}_v5e", f"speech_aware/{name}", stage, V5E) for name, stage in stages.items()]
    whole = ("--answers.train.accumulate", "1")  # 64 rows for 64 chips
    return [dataclasses.replace(made[0], topology="v5e:8x8", options=whole), *made[1:]]


def in_one_stream() -> list[Job]:
    """Text models that learn units, with the published batch or, of the longer rows, one on every chip."""
    stages = {"speechgpt_7b": "cm", "spirit_lm_7b": "turns"}
    return [Job(f"{name}_v5e", f"speech_text/{name}", stage, V5E, ("--fit",)) for name, stage in stages.items()]


def coding() -> list[Job]:
    """The published codecs with their judges: one row on every chip, nine of DAC and SNAC, whose rows are short."""
    slices = {
        "encodec_24khz": "v5e:8x8",
        "soundstream_16khz": "v5e:8x8",
        "snac_24khz": "v5e:2x4",
        "dac_16khz": "v5e:2x4",
        "dac_24khz": "v5e:2x4",
        "dac_44khz": "v5e:2x4",
        "mimi_24khz": "v5e:8x16",
    }
    return [Job(f"{name}_v5e", f"codecs/{name}", "codec", topology) for name, topology in slices.items()]


def scaled(size: str, chips: int) -> Job:
    """A language model with the same rows on every chip, weights spread over all of them."""
    options = ("--lm.batches.batch", str(ROWS * chips), "--lm.train.accumulate", "1", "--lm.model.remat", "true")
    return Job(f"scaling_{size}_{chips:04d}", f"speech/twist_{size}", "lm", SCALING[chips], options)


def make(job: Job) -> None:
    """Plan one and keep the answer."""
    start = time.time()
    done = subprocess.run([sys.executable, *job.command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{job.name}: failed with exit code {done.returncode}", file=sys.stderr)
        return
    plan = {"command": ["python", *job.command], **json.loads(done.stdout)}
    PLANS.mkdir(exist_ok=True)
    job.path.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    print(f"{job.name}: {time.time() - start:.0f} s", file=sys.stderr)


def predict(job: Job) -> None:
    """The memory model's figure anew, for the settings that the plan ended with."""
    from slm_jax.cli.main import keep_libtpu_quiet

    keep_libtpu_quiet()
    from slm_jax.cli.options import parse_with_config
    from slm_jax.cli.plan import PlanOptions
    from slm_jax.workbench.plan import topology_for, trace

    plan = json.loads(job.path.read_text(encoding="utf-8"))
    flags = [part for flag in plan.get("flags", ()) for part in flag.split()]
    typed = [part for part in plan["command"][4:] if part not in ("--fit", "--json")]
    options, run = parse_with_config(PlanOptions, [*typed, *flags], "plan")
    stage = run.stage(options.stage)
    memory = trace(run, stage, topology_for(stage, options.topology)).memory
    for told in (plan, *plan["stages"]):
        told["predicted_peak"] = memory.peak
    job.path.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    share = memory.peak / plan["bytes_per_device"]["peak"]
    print(f"{job.name}: {memory.peak / 2**30:.2f} GiB predicted, {share:.2f} of what was compiled", file=sys.stderr)


def tables() -> str:
    """Both tables as Markdown, of the plans that are there."""
    there = {job.name: json.loads(job.path.read_text(encoding="utf-8")) for job in jobs() if job.path.is_file()}
    plans = [(name, plan) for name, plan in there.items() if not name.startswith("scaling")]
    scaling = [(name, plan) for name, plan in there.items() if name.startswith("scaling")]
    return f"{rows(PLAN_COLUMNS, plans)}\n\nWeak scaling, {ROWS} rows of 1,024 tokens a chip:\n\n" + rows(
        SCALING_COLUMNS, scaling
    )


def rows(columns: dict[str, Any], plans: list[tuple[str, dict[str, Any]]]) -> str:
    """A Markdown table: one row per plan."""
    lines = ["| plan | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(show(plan)) for show in columns.values()) + " |" for name, plan in plans]
    return "\n".join(lines)


def milliseconds(plan: dict[str, Any], part: str) -> str:
    """One part of the roofline."""
    return "–" if plan["seconds"] is None else f"{1000 * plan['seconds'][part]:.1f}"


def best(key: str, factor: float, form: str) -> Any:
    """A figure of the roofline, a dash where nothing was compiled."""
    return lambda plan: "–" if plan[key] is None else format(factor * plan[key], form)


def settings(plan: dict[str, Any]) -> str:
    """How the batch is cut and the weights lie."""
    told = plan["settings"]
    again = ", remat" if told["remat"] else ""
    return f"batch {told['batch']} in {told['accumulate']}, {told['rules']}{again}"


PLAN_COLUMNS: dict[str, Any] = {
    "slice": lambda plan: plan["topology"],
    "parameters": lambda plan: f"{plan['parameters'] / 1e6:,.0f} M",
    "settings": settings,
    "fits": lambda plan: "yes" if plan["fits"] else "no",
    "GiB of": lambda plan: (
        f"{plan['bytes_per_device']['peak'] / 2**30:.2f} of {plan['bytes_per_device']['limit'] / 2**30:.2f}"
    ),
    "predicted GiB": lambda plan: f"{plan['predicted_peak'] / 2**30:.2f}",
    "at best ms": best("step_seconds_bound", 1000, ".1f"),
    "limit": lambda plan: plan["bound_by"] or "–",
    "MFU at most %": best("mfu_bound", 100, ".0f"),
    "tokens/s": best("tokens_per_second", 1, ",.0f"),
    "hours of speech/s": best("audio_hours_per_second", 1, ".2f"),
}
SCALING_COLUMNS: dict[str, Any] = {
    "chips": lambda plan: plan["chips"],
    "GiB": lambda plan: f"{plan['bytes_per_device']['peak'] / 2**30:.1f}",
    "compute ms": lambda plan: milliseconds(plan, "compute"),
    "HBM ms": lambda plan: milliseconds(plan, "memory"),
    "ICI ms": lambda plan: milliseconds(plan, "links"),
    "limit": lambda plan: plan["bound_by"] or "–",
    "MFU at most %": best("mfu_bound", 100, ".0f"),
    "tokens/s": best("tokens_per_second", 1, ",.0f"),
}


def write_readme() -> None:
    """Put the tables between the marks of README.md."""
    path = HERE / "README.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}", encoding="utf-8")


BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"


def main() -> None:
    """Make the plans that are missing, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="plans to make; all when none is named")
    parser.add_argument("--list", action="store_true", help="show the plans and stop")
    parser.add_argument("--table", action="store_true", help="write the tables and stop")
    parser.add_argument("--predict", action="store_true", help="bring predictions up to date, compile nothing")
    options = parser.parse_args()
    wanted = [job for job in jobs() if not options.names or job.name in options.names]
    if options.list:
        print("\n".join(f"{job.name:24} {'there' if job.path.is_file() else '-':6}{job.topology}" for job in wanted))
        return
    for job in wanted if options.predict else []:
        if job.path.is_file():
            predict(job)
    for job in [] if options.table or options.predict else wanted:
        if not job.path.is_file():
            make(job)
        write_readme()
    write_readme()


if __name__ == "__main__":
    main()
