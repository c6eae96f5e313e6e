"""Options and overrides: every field by flag, and one line for each mistake."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from slm_jax.cli.options import override_config, parse_options, parse_with_config, split_arguments
from slm_jax.core.config import Config, diff
from slm_jax.core.errors import UserError, require

PARTS_FILE = """
from slm_jax.core.config import Config

class Model(Config):
    layers: int = 2
    width: int = 64

class Run(Config):
    seed: int = 0
    model: Model = Model()
"""
CONFIG_FILE = "from tiny_parts import Run\n\nconfig = Run()\n"


class Optimizer(Config):
    """AdamW."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    ema: bool = False

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "must be positive")


class Stage(Config):
    name: str
    steps: int = 10


class Clusters(Stage):
    clusters: int | None = 50
    start: Literal["random", "plusplus"] = "plusplus"
    layers: tuple[int, ...] = (1, 2)
    optimizer: Optimizer = Optimizer()


class Run(Config):
    dtype: str = "float32"
    shuffle: bool = True
    optimizer: Optimizer = Optimizer()
    slow: Optimizer | None = None
    stages: tuple[Stage, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a verb."""

    config: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """Config file."""
    workdir: Path = Path("runs/train")
    dry_run: bool = False


RUN = Run(stages=(Clusters(name="first-units"), Stage(name="lm")))


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        ("--optimizer.learning-rate 3e-4", "optimizer.learning_rate: 0.001 -> 0.0003"),
        ("--optimizer.learning_rate=3e-4", "optimizer.learning_rate: 0.001 -> 0.0003"),
        ("--optimizer.betas 0.8 0.9", "optimizer.betas: [0.9, 0.98] -> [0.8, 0.9]"),
        ("--optimizer.ema", "optimizer.ema: False -> True"),
        ("--optimizer.ema true", "optimizer.ema: False -> True"),
        ("--no-shuffle", "shuffle: True -> False"),
        ("--shuffle false", "shuffle: True -> False"),
        ("--shuffle=no", "shuffle: True -> False"),
        ("--stages.1.steps 5", "stages.1.steps: 10 -> 5"),
        ("--stages.lm.steps 5", "stages.1.steps: 10 -> 5"),
        ("--lm.steps 5", "stages.1.steps: 10 -> 5"),
        ("--first-units.clusters None", "stages.0.clusters: 50 -> None"),
        ("--stages.first_units.layers 3 4 5", "stages.0.layers: [1, 2] -> [3, 4, 5]"),
        ("--first-units.optimizer.no-ema --lm.steps 5", "stages.1.steps: 10 -> 5"),
        ("--first-units.optimizer.learning-rate 2", "stages.0.optimizer.learning_rate: 0.001 -> 2.0"),
    ],
)
def test_a_flag_changes_that_field_alone(flags, change):
    assert diff(RUN, override_config(RUN, flags.split())) == [change]


class Named(Run):
    answers: str = "answers"


def test_a_stage_may_be_called_like_a_field_that_names_it():
    run = Named(stages=(Stage(name="answers"), Stage(name="other")))
    assert override_config(run, ["--answers.steps", "3"]).stages[0].steps == 3
    assert override_config(run, ["--answers", "other"]).answers == "other"
    assert override_config(run, ["--answers", "other"]).stages == run.stages


def test_items_keep_their_type():
    changed = override_config(RUN, ["--lm.steps", "5", "--dtype", "bfloat16"])
    assert changed == RUN.replace(dtype="bfloat16", stages=(RUN.stages[0], Stage(name="lm", steps=5)))
    assert override_config(RUN, []) is RUN


def test_a_part_that_is_not_there_begins_with_its_defaults():
    assert override_config(RUN, ["--slow.learning-rate", "0.5"]).slow == Optimizer(learning_rate=0.5)
    with pytest.raises(UserError, match=r"did you mean '--slow\.learning-rate'"):
        override_config(RUN, ["--slow.learning-rat", "0.5"])
    with pytest.raises(UserError, match=r"--first-units\.clusters\.size"):
        override_config(RUN, ["--first-units.clusters.size", "1"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--optimizer.learning-rat 1", "--optimizer.learning-rat (did you mean '--optimizer.learning-rate'?)"),
        ("--learning-rate 1", "--learning-rate (did you mean '--optimizer.learning-rate'?)"),
        ("--lm.step 1", "--lm.step (did you mean '--stages.lm.steps'?)"),
        ("--stages.2.steps 1", "unknown field --stages.2.steps"),
        ("--optimizer 1", "--optimizer is a config, not a single value: name one of its fields (learning_rate, "),
        ("--lm.steps 1.5", "--stages.1.steps: invalid literal for int() with base 10: '1.5'"),
        ("--lm.steps", "Missing value for argument '--stages.1.steps'"),
        ("--optimizer.betas 1", "Missing value for argument '--optimizer.betas'. Expected 2 values."),
        ("--first-units.start plusplu", "(did you mean 'plusplus'?)"),
        ("--optimizer.learning-rate -1", "learning_rate is -1.0: must be positive"),
        ("--shuffle maybe", "--shuffle is a switch: 'maybe' must be true or false"),
        ("steps 5", "unexpected argument 'steps'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(flags, message):
    with pytest.raises(UserError) as caught:
        override_config(RUN, flags.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not set(str(caught.value)) & set("│╭─")


def test_options_of_a_verb():
    options = parse_options(TrainOptions, ["c.py", "--workdir", "w", "--dry-run"], "train")
    assert options == TrainOptions(config=Path("c.py"), workdir=Path("w"), dry_run=True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["c.py", "--wrokdir", "w"], "unknown option --wrokdir (did you mean '--workdir'?)"),
        ([], "missing argument: CONFIG"),
        (["c.py", "d.py"], "Unrecognized options: d.py"),
    ],
)
def test_wrong_options(argv, message):
    with pytest.raises(UserError) as caught:
        parse_options(TrainOptions, argv, "train")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_goes_where_its_flag_goes():
    argv = ["c.py", "--model.layers", "3", "--workdir", "w", "--seed", "-1", "--dry-run"]
    assert split_arguments(TrainOptions, argv) == (
        ["c.py", "--workdir", "w", "--dry-run"],
        ["--model.layers", "3", "--seed", "-1"],
    )


@pytest.fixture
def config_file(tmp_path, monkeypatch) -> Path:
    """A config file beside the module with its classes."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_parts", raising=False)
    (tmp_path / "tiny_parts.py").write_text(PARTS_FILE)
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG_FILE)
    return path


def test_config_file_with_overrides(config_file):
    path, tmp_path = config_file, config_file.parent
    options, config = parse_with_config(TrainOptions, [str(path), "--model.layers", "3", "--dry-run"], "train")
    assert (options.dry_run, config.model.layers, config.model.width) == (True, 3, 64)
    with pytest.raises(UserError, match=r"did you mean '--model\.layers'"):
        parse_with_config(TrainOptions, [str(path), "--model.layer", "3"], "train")
    with pytest.raises(UserError, match=r"does not exist \(did you mean .*tiny\.py"):
        parse_with_config(TrainOptions, [str(tmp_path / "tinny.py")], "train")


def test_a_class_made_in_the_config_file_is_refused_when_overridden(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(PARTS_FILE + "\nconfig = Run()\n")
    with pytest.raises(UserError, match="config class is 'Run': a class made in the config file"):
        parse_with_config(TrainOptions, [str(path), "--seed", "1"], "train")


def test_help_shows_options_and_config_fields(config_file, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_with_config(TrainOptions, [str(config_file), "--help"], "train")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--workdir" in shown
    assert "--model.width" in shown
