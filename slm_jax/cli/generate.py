"""Continue recorded speech with the system in a run folder."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.console import say
from slm_jax.cli.options import parse_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Speak on: each prompt is read, turned into units, continued and spoken."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder that `train` made."""
    prompts: tuple[Path, ...] = ()
    """Audio files to continue; without any, the openings of held-out utterances of the run's own corpus."""
    out: Path | None = None
    """Where the sounds go; by default RUN/generated."""
    count: int = 4
    """Continuations per prompt, or without prompts in all."""
    prompt_s: float | None = None
    """Seconds of each prompt that are used; by default those of the run's config for held-out utterances, else all."""
    temperature: float | None = None
    """Sampling temperature, 0 for the likeliest unit; by default that of the run's config."""
    max_new: int | None = None
    """Units to add at most; by default that of the run's config."""
    speaker: str | None = None
    """Name of the voice, where the vocoder knows several."""
    seed: int = 0
    """Another seed, another continuation."""
    data_dir: Path = Path("data")
    """Where the corpus is prepared anew for a run folder of an older version, which keeps no speech of its own."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Write one sound per continuation; print and return what was made."""
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import StageContext, read_run_config

    options = parse_options(GenerateOptions, argv, "generate")
    run = RunFolder(options.run)
    config = read_run_config(run)
    context = StageContext(run, config.corpus, options.data_dir)
    system = config.load(context)
    speaker = _speaker(options, system)
    prompts = _prompts(options, config, context, system.rate_hz)
    made = _continued(options, config, system, prompts, speaker)
    for one in made:
        print(one["file"])
    return {"made": made}


def _prompts(options: GenerateOptions, config: Any, context: Any, rate_hz: int) -> dict[str, Any]:
    """Samples by name."""
    from slm_jax.audio.files import read_audio
    from slm_jax.data.passes import float_samples
    from slm_jax.training.stages import judging_context
    from slm_jax.workbench.speech_lm import held_out

    if options.prompts:
        names = [f"{number}_{path.stem}" for number, path in enumerate(options.prompts, start=1)]
        read = (read_audio(path, rate_hz=rate_hz, duration_s=options.prompt_s) for path in options.prompts)
        chosen = dict(zip(names, read, strict=True))
        return {f"{name}_{i}": samples for name, samples in chosen.items() for i in range(1, options.count + 1)}
    seconds = config.prompt_s if options.prompt_s is None else options.prompt_s
    kept = judging_context(config, context.run, options.data_dir, say)
    items = held_out(kept, options.count, longer_than_s=seconds)
    return {item["id"]: float_samples(item["samples"])[: round(seconds * rate_hz)] for item in items}


def _continued(
    options: GenerateOptions, config: Any, system: Any, prompts: dict[str, Any], speaker: int
) -> list[dict[str, Any]]:
    import jax
    import numpy as np

    from slm_jax.audio.files import write_wav

    changes = {name: getattr(options, name) for name in ("temperature", "max_new")}
    sampling = config.sampling.replace(**{name: value for name, value in changes.items() if value is not None})
    units = [one.runs for one in system.encode(list(prompts.values()))]
    made = system.generate(units, jax.random.key(options.seed), sampling)
    said = system.decode(
        [np.concatenate([prompt, new]) for prompt, new in zip(units, made, strict=True)], speaker=speaker
    )
    folder = options.out or options.run / "generated"
    say(f"writing {len(said)} sounds to {folder}")
    found = []
    for name, prompt, new, samples in zip(prompts, units, made, said, strict=True):
        file = write_wav(folder / f"{name}.wav", samples, system.rate_hz)
        found.append({"file": str(file), "prompt_units": prompt.tolist(), "new_units": new.tolist()})
    return found


def _speaker(options: GenerateOptions, system: Any) -> int:
    from slm_jax.core.errors import UserError, nearest

    if options.speaker is None:
        return 0
    if options.speaker not in system.speakers:
        known = f"voices: {', '.join(system.speakers)}" if system.speakers else "this run has one voice without a name"
        raise UserError(
            f"--speaker {options.speaker!r} is not known{nearest(options.speaker, system.speakers)}; {known}"
        )
    return system.speakers.index(options.speaker)
