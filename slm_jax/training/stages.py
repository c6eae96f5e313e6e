"""Stages: a run is a list of them, each reading what earlier ones left in the run folder.

    runs/demo/
      run.json               the config of the run
      kept/                  what judging and prompting need of the corpus
      stages/<name>/         stage.json (config, hashes of what it consumed), artifacts, done.json

A stage that is done is skipped; one that was interrupted resumes; one whose config or inputs changed is refused with
the difference, unless it is asked to be redone.
"""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from slm_jax.checkpoints.integrity import write_json
from slm_jax.core.config import Config, content_hash, from_json
from slm_jax.core.errors import UserError, nearest, require
from slm_jax.core.messages import Conversation
from slm_jax.data.corpus import SPLITS, CorpusConfig, Report, SeveralCorporaConfig, open_corpus, prepare_corpus
from slm_jax.data.joined import EndToEnd, Subset
from slm_jax.data.lengths import bucket_lengths
from slm_jax.evaluation.section import JudgeConfig
from slm_jax.parallel.hosts import all_arrived, on_first_host
from slm_jax.training.held_out import openings
from slm_jax.training.kept import KeptSpeechConfig, keep_speech, kept_folder, kept_lengths, kept_source
from slm_jax.training.run_folder import RunFolder, StageFolder, differences

log = logging.getLogger(__name__)
S = TypeVar("S", bound="StageConfig")

DRY_RUN_EXAMPLES = 16


@dataclasses.dataclass(frozen=True)
class StageContext:
    """What a stage may use besides its own config and folder."""

    run: RunFolder
    corpus: CorpusConfig
    data_dir: Path
    progress: bool = True
    say: Callable[[str], None] = log.info
    dry_run: bool = False
    """Take one training step per stage, on a few examples."""
    kept: bool = False
    """Read the speech that the run folder keeps, not the corpus."""

    def source(self, split: str, kinds: tuple[str, ...] | None = None) -> Any:
        """The corpus' examples of one split (what is kept of them with `kept`); a few of them in a dry run.

        A split may be empty. `kinds`: which kinds of items, None for those that the corpus gives unless asked
        otherwise; raises `UserError` for a kind that is not there at all.
        """
        if self.kept:
            return kept_source(self.run, split, kinds)
        source = open_corpus(self.corpus, self.data_dir, split, kinds=kinds)
        if not self.dry_run:
            return source
        if isinstance(source, EndToEnd):
            return source.first(DRY_RUN_EXAMPLES)
        return Subset(source, range(min(DRY_RUN_EXAMPLES, len(source))))

    def say_unmeasured(self, stage: str) -> None:
        """That there is nothing to measure `stage` on while it is trained."""
        self.say(f"stage {stage}: the dev split is empty, so nothing is measured on it while training")

    def places(self, split: str) -> dict[str, range]:
        """Which examples of `source(split)` are from which corpus of several; empty for a single one."""
        return self.source(split).places if isinstance(self.corpus, SeveralCorporaConfig) else {}

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """A few lengths (samples) that hold every utterance of the corpus: the shapes of all passes over it."""
        return kept_lengths(self.run) if self.kept else self.lengths_of(None)

    def lengths_of(self, kinds: tuple[str, ...] | None) -> tuple[int, ...]:
        """The same of the items of some kinds, whole corpora only."""
        rate_hz = self.corpus.rate_hz
        seconds = [open_corpus(self.corpus, self.data_dir, split, kinds=kinds).seconds for split in SPLITS]
        samples = np.rint(np.concatenate(seconds) * rate_hz).astype(np.int64)
        return bucket_lengths(samples, count=4, multiple=rate_hz // 10)

    def finished(self, name: str) -> StageFolder:
        """The folder of a stage that is done."""
        folder = self.run.stage(name)
        require(folder.is_done(), "stage", name, "it is not done yet; run the stages before this one first")
        return folder


class StageConfig(Config):
    """One step of a recipe; `run` leaves artifacts in the stage's folder and returns their relative paths."""

    name: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages whose artifacts this one reads."""
        return ()

    def check_outside(self, begun: StageFolder | None) -> None:
        """Raise `UserError` when something that is no stage of the run, such as a folder of weights, is missing.

        Asked before any stage runs. `begun`: the stage's folder, None when it is to be run afresh.
        """

    def check_corpus(self, corpus: CorpusConfig) -> None:
        """Raise `UserError` when this stage cannot work at the corpus' rate or with its channels; before any runs."""

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        raise TypeError(f"{type(self).__name__} does not say how it runs")

    @classmethod
    def of(cls: type[S], folder: StageFolder) -> S:
        """The config a folder was begun with; raises `UserError` when it is of another kind of stage."""
        config = from_json(folder.begun()["config"])
        if not isinstance(config, cls):
            raise UserError(f"stage {folder.name!r} is a {type(config).__name__}: a {cls.__name__} is needed here")
        return config


def require_form(stage: str, corpus: CorpusConfig, rate_hz: int, field: str = "", channels: int = 1) -> None:
    """Raise `UserError` unless the corpus has at most so many channels at `rate_hz`, which `field` of the stage says if
    given."""
    needs = f"stage {stage!r} works at {rate_hz} Hz" + (f" ({field} says so)" if field else "")
    require(corpus.rate_hz == rate_hz, "rate_hz of the corpus", corpus.rate_hz, needs)
    reads = "one channel" if channels == 1 else f"up to {channels} channels"
    require(corpus.channels <= channels, "channels of the corpus", corpus.channels, f"stage {stage!r} reads {reads}")


class RunConfig(Config):
    """A whole recipe: a corpus and the stages that turn it into a system, in order.

    `judges`: how the system is judged, one section of the report each.
    `keeps`: what the run folder keeps of the corpus for judging and prompting.
    """

    FREE: ClassVar[tuple[str, ...]] = ("judges",)

    name: str
    corpus: CorpusConfig
    stages: tuple[StageConfig, ...]
    keeps: KeptSpeechConfig = KeptSpeechConfig()
    judges: tuple[JudgeConfig, ...] = ()

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        for position, stage in enumerate(self.stages):
            require(names.count(stage.name) == 1, "stages", stage.name, "every stage needs a name of its own")
            for need in stage.needs:
                require(
                    need in names[:position],
                    f"stage {stage.name!r} reads stage",
                    need,
                    f"it must stand before it; before it stand {names[:position]}",
                )
        judges = [judge.name for judge in self.judges]
        for name in judges:
            require(judges.count(name) == 1, "judges", name, "every judge needs a name of its own")

    def stage(self, name: str) -> StageConfig:
        """The stage called `name`."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise UserError(f"stage {name!r} is not in this run{nearest(name, names)}; it has {', '.join(names)}")

    def load(self, context: StageContext) -> Any:
        """The trained system of a finished run (see `core.contracts.System`)."""
        raise UserError(f"{type(self).__name__} describes stages only; it has no system to load")

    def prompts(self, context: StageContext, count: int, seconds: float | int | None = None) -> dict[str, Conversation]:
        """Held-out conversations by name, on which the system is tried; `seconds`: how much is heard of each."""
        return openings(context, count, seconds)


def read_run_config(run: RunFolder) -> RunConfig:
    """The config a run folder was made with."""
    path = run.path / "run.json"
    require(path.is_file(), "run folder", str(run.path), "it has no run.json; make one with `train CONFIG --workdir`")
    config = from_json(json.loads(path.read_text(encoding="utf-8")))
    require(isinstance(config, RunConfig), "run.json", str(path), "it does not hold the config of a run")
    assert isinstance(config, RunConfig)
    return config


def run_stages(
    config: RunConfig, context: StageContext, only: Sequence[str] = (), redo: Sequence[str] = ()
) -> Iterator[tuple[str, float | None]]:
    """Run the stages in order; yields (name, seconds) after each, seconds None when it was done before.

    On several hosts each calls it. The first holds the run folder, prepares the corpus and writes; the others wait
    for it, and share the work inside the stages.

    `only` restricts the run to these stages; `redo` sets these, and every stage that reads them, aside first.
    """
    for name in (*only, *redo):
        config.stage(name)
    require_same_command(config, only, redo)
    with contextlib.ExitStack() as held:
        on_first_host(lambda: held.enter_context(context.run.lock()))
        context.say(on_first_host(lambda: open_run(config, context, only, dependents(config, redo))))
        require_shared(context.run)
        for stage in config.stages:
            if not only or stage.name in only:
                yield stage.name, run_stage(stage, context)


def open_run(config: RunConfig, context: StageContext, only: Sequence[str], afresh: Sequence[str]) -> str:
    """What comes before the first stage; the account of the corpus."""
    for stage in config.stages:
        stage.check_corpus(config.corpus)
    check_outside(config, context.run, only, afresh)
    for name in afresh:
        set_aside(context.run.stage(name))
    record_config(config, context.run, changed_allowed=set(afresh))
    report = require_corpus(config, context).to_text()
    if not context.dry_run:
        keep_speech(context.run, context.source, context.lengths, corpus_hash(config), config.keeps)
    return report


def require_same_command(config: RunConfig, only: Sequence[str], redo: Sequence[str]) -> None:
    """Raise `UserError` on a host that was started with another config or other stages than the first."""
    mine = [config.content_hash(), sorted(only), sorted(redo)]
    rule = "every host must be started with the same config, --only and --redo"
    require(on_first_host(lambda: mine) == mine, "the command of this host", mine, rule)


def require_shared(run: RunFolder, patience_s: float = 10.0) -> None:
    """Raise `UserError` on a host that does not see the run folder of the first; a network disk may lag a little."""
    end = time.monotonic() + patience_s
    while not (seen := (run.path / "run.json").is_file()) and time.monotonic() < end:
        time.sleep(0.2)
    require(seen, "run folder", str(run.path), "this host does not see it: all hosts need it on storage they share")


def run_stage(stage: StageConfig, context: StageContext) -> float | None:
    """Run one stage unless it is done; returns its seconds. All hosts agree on what is done."""
    folder = context.run.stage(stage.name)
    if on_first_host(lambda: begun_and_done(stage, folder, context)):
        return None
    start = time.perf_counter()
    artifacts = list(stage.run(folder, context))
    all_arrived(stage.name)
    on_first_host(lambda: folder.finish(artifacts))
    return time.perf_counter() - start


def begun_and_done(stage: StageConfig, folder: StageFolder, context: StageContext) -> bool:
    """Record what the stage is made from; True when it is done already."""
    consumed = {need: context.finished(need).artifact_hash() for need in stage.needs}
    folder.begin(stage, {"corpus": corpus_hash(context), **consumed})
    return folder.is_done()


def check_outside(config: RunConfig, run: RunFolder, only: Sequence[str], afresh: Sequence[str]) -> None:
    """Ask every stage that is about to run for what it needs from outside of the run."""
    for stage in config.stages:
        folder = run.stage(stage.name)
        if (not only or stage.name in only) and (stage.name in afresh or not folder.is_done()):
            stage.check_outside(None if stage.name in afresh else folder)


def dependents(config: RunConfig, names: Sequence[str]) -> list[str]:
    """`names` and every stage that reads one of them, directly or not, in order."""
    marked: list[str] = []
    for stage in config.stages:
        if stage.name in names or any(need in marked for need in stage.needs):
            marked.append(stage.name)
    return marked


def set_aside(folder: StageFolder) -> None:
    """Rename a stage's folder so that it runs afresh and nothing is lost."""
    if folder.path.exists():
        number = 1
        while (aside := folder.path.with_name(f"{folder.path.name}.old{number}")).exists():
            number += 1
        folder.path.rename(aside)
        log.warning("stage %s is set aside as %s", folder.path.name, aside.name)


def record_config(config: RunConfig, run: RunFolder, changed_allowed: set[str]) -> None:
    """Write run.json, or refuse when the folder was made with another config.

    Changes inside the stages `changed_allowed` are accepted: they run again. So are stages that the folder does not
    have yet, and other values of free fields.
    """
    path = run.path / "run.json"
    if path.is_file():
        before = read_run_config(run)
        known = {stage.name for stage in before.stages}
        free = changed_allowed | {stage.name for stage in config.stages if stage.name not in known}
        lines = differences(masked(before, free).binding_json(), masked(config, free).binding_json())
        if lines:
            raise UserError(
                f"the run folder {run.path} was made with another config: {'; '.join(lines[:8])}. "
                "Take another --workdir, or --redo STAGE to run the changed stage and those after it again"
            )
    write_json(path, config.to_json())


def masked(config: RunConfig, names: set[str]) -> RunConfig:
    """`config` without the stages `names`, and without its checks: only for comparing."""
    kept = tuple(stage for stage in config.stages if stage.name not in names)
    bare = object.__new__(type(config))
    for field in dataclasses.fields(config):
        object.__setattr__(bare, field.name, kept if field.name == "stages" else getattr(config, field.name))
    return bare


def corpus_hash(owner: RunConfig | StageContext) -> str:
    """The hash of the settings of a corpus."""
    return content_hash(owner.corpus.identity())


def require_corpus(config: RunConfig, context: StageContext) -> Report:
    """Prepare the corpus when it is not there; the report says what was left out."""
    return prepare_corpus(config.corpus, context.data_dir, progress=context.progress)


def judging_context(
    config: RunConfig, run: RunFolder, data_dir: Path, say: Callable[[str], None] = log.info
) -> StageContext:
    """A context in which a run is judged and prompted: its speech is what the run folder keeps of the corpus.

    A run folder of an older version keeps none yet: the corpus is prepared in `data_dir` and kept now. Raises
    `UserError` where that is not possible any more.
    """
    context = StageContext(run, config.corpus, data_dir, say=say)
    if not kept_folder(run).is_done():
        say(f"{run.path} keeps no speech of its corpus yet; preparing it")
        with run.lock():
            try:
                require_corpus(config, context)
            except UserError as error:
                raise UserError(
                    f"run folder {str(run.path)!r} keeps no speech, and its corpus is gone: {error}"
                ) from error
            keep_speech(run, context.source, context.lengths, corpus_hash(config), config.keeps)
    return dataclasses.replace(context, kept=True)
