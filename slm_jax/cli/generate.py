"""Let the system in a run folder answer recordings and words."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.console import say
from slm_jax.cli.options import override_config, parse_options

DECODING = "--decoding."
SHORT = ("temperature", "max_new", "speaker")
"""Fields of a system's decoding that have a short flag."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Each prompt is read by the system, and what it replies is written as sound and text.

    How it decodes is a config of the system's own: any field of it may be set, `--decoding.top-k 20`.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder that `train` made."""
    prompts: tuple[Path, ...] = ()
    """Audio files, one prompt each; without any and without text, held-out speech of the run's own corpus."""
    text: str | None = None
    """Words after the speech of each prompt, or a prompt of words alone."""
    out: Path | None = None
    """Where the replies go; by default RUN/generated."""
    count: int = 4
    """Replies per prompt, or without prompts in all."""
    prompt_s: float | None = None
    """Seconds of each prompt that are used; by default those of the run's config for held-out speech, else all."""
    temperature: float | None = None
    """Short for --decoding.temperature: 0 for the likeliest token; by default that of the run's config."""
    max_new: int | None = None
    """Short for --decoding.max-new: tokens to add at most; by default that of the run's config."""
    speaker: str | None = None
    """Short for --decoding.speaker: the name of the voice, where the system knows several."""
    seed: int = 0
    """Another seed, another reply."""
    data_dir: Path = Path("data")
    """Where the corpus is prepared anew for a run folder of an older version, which keeps no speech of its own."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Write what the system replies; print and return it."""
    import jax

    from slm_jax.serving.hearing import require_readable
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import StageContext, read_run_config

    own, changes = split_decoding(argv)
    options = parse_options(GenerateOptions, own, "generate")
    run = RunFolder(options.run)
    config = read_run_config(run)
    context = StageContext(run, config.corpus, options.data_dir)
    system = config.load(context)
    decoding = decoding_of(options, system.decoding, changes)
    named = conversations_of(options, config, context, system.rate_hz)
    require_readable(list(named.values()), system.reads)
    replies = system.respond(list(named.values()), decoding, jax.random.key(options.seed))
    folder = options.out or options.run / "generated"
    say(f"writing {len(replies)} replies to {folder}")
    made = [written_reply(folder, name, reply) for name, reply in zip(named, replies, strict=True)]
    for one in made:
        print(one["file"], *([one["text"]] if "text" in one else []))
    return {"made": made}


def split_decoding(argv: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of the verb, and those that name a field of the decoding, without `decoding.`."""
    own: list[str] = []
    changes: list[str] = []
    target = own
    for token in argv:
        if token.startswith("--"):
            target = changes if token.startswith(DECODING) else own
        target.append(f"--{token.removeprefix(DECODING)}" if token.startswith(DECODING) else token)
    return own, changes


def written_reply(folder: Path, name: str, reply: Any) -> dict[str, Any]:
    """The reply's speech as NAME.wav, NAME_2.wav ..., its words as NAME.txt; what was written, and the trace."""
    from slm_jax.audio.files import write_wav

    clips = [clip for message in reply.messages for clip in message.speech]
    places = [folder / f"{name}{f'_{i}' if i > 1 else ''}.wav" for i in range(1, len(clips) + 1)]
    files = [write_wav(place, clip.samples, clip.rate_hz) for place, clip in zip(places, clips, strict=True)]
    found: dict[str, Any] = {}
    if any("text" in message.kinds for message in reply.messages):
        found["text"] = "\n".join(message.text for message in reply.messages if message.text)
        files.append(folder / f"{name}.txt")
        folder.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(found["text"] + "\n", encoding="utf-8")
    return {"file": str(files[0]), "files": [str(file) for file in files], **found, "trace": _plain(reply.trace)}


def conversations_of(options: GenerateOptions, config: Any, context: Any, rate_hz: int) -> dict[str, Any]:
    """What the system is to answer, by name; prompts that are given come `count` times each."""
    from slm_jax.audio.files import read_audio
    from slm_jax.core.messages import Message, Speech, Text
    from slm_jax.training.stages import judging_context

    words = () if options.text is None else (Text(options.text),)
    if not options.prompts and not words:
        kept = judging_context(config, context.run, options.data_dir, say)
        return config.prompts(kept, options.count, options.prompt_s)
    given = {} if options.prompts else {"text": words}
    for number, path in enumerate(options.prompts, start=1):
        samples = read_audio(path, rate_hz=rate_hz, duration_s=options.prompt_s)
        given[f"{number}_{path.stem}"] = (Speech(samples, rate_hz), *words)
    asked = {name: (Message("user", parts),) for name, parts in given.items()}
    return {f"{name}_{i}": one for name, one in asked.items() for i in range(1, options.count + 1)}


def decoding_of(options: GenerateOptions, decoding: Any, changes: list[str]) -> Any:
    """The system's decoding with what the flags change."""
    from slm_jax.core.errors import require

    known = {field.name for field in dataclasses.fields(decoding)}
    short = {name: getattr(options, name) for name in SHORT if getattr(options, name) is not None}
    for name, value in short.items():
        rule = f"the decoding of this system has no such field; it has {', '.join(sorted(known))}"
        require(name in known, f"--{name.replace('_', '-')}", value, rule)
    return override_config(decoding.replace(**short), changes, prog="generate")


def _plain(value: Any) -> Any:
    """A trace as JSON holds it."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value
