"""Text and units in one stream as users have them: both twins through every stage, asked by their forms, judged."""

import json

import pytest

from slm_jax.cli.main import main
from slm_jax.core.trees import flatten_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.systems.catalogue import modules
from slm_jax.training.gradient_stage import trained
from slm_jax.training.run_folder import RunFolder
from tests.end_to_end.smallest import KMEANS, TRAIN, small_encoder, small_vocoder

CORPUS = "hours=0.02, question_hours=0.03, speakers=2, processes=1, test_share=0.3, dev_share=0.2"
FILE = """from slm_jax.data.corpus import WorldConfig
from slm_jax.systems.speech_text import {name}
from tests.end_to_end.test_one_stream import smallest

config = smallest({name}.tiny(WorldConfig({corpus}), clusters=16))
"""


def smallest(config):
    """The same stages, each cut down."""
    return config.replace(stages=tuple(map(cut, config.stages)), decoding=config.decoding.replace(max_new=24))


def cut(stage):
    """One stage with tiny widths and a few steps."""
    changes = {"kmeans": KMEANS} if hasattr(stage, "kmeans") else {}
    if stage.name == "clusters":
        changes["features"] = stage.features.replace(layer=1)
    if stage.name == "units":
        changes |= {"model": small_encoder(stage.model), "crop_s": 1.0}
    if stage.name == "vocoder":
        voices = {"speakers": stage.model.speakers and 2}
        changes["model"] = small_vocoder(stage.model.replace(**voices))
    if hasattr(stage, "lm") and stage.lm.expect is not None:
        changes["lm"] = stage.lm.replace(expect=narrow(stage.lm.expect))
    if stage.name == "lm":
        changes["model"] = narrow(stage.model)
    if hasattr(stage, "train"):
        changes |= {"train": TRAIN, "optimizer": stage.optimizer.replace(warmup_steps=1)}
        changes["batches"] = stage.batches.replace(batch=2)
    return stage.replace(**changes)


def narrow(lm):
    """One layer of 32."""
    return lm.replace(layers=1, width=32, heads=2, kv_heads=2, hidden=48)


@pytest.mark.slow(seconds=100)
@pytest.mark.parametrize("name", ["speechgpt", "spirit_lm"])
def test_a_twin_goes_through_every_stage_and_answers(name, tmp_path):
    (tmp_path / "config.py").write_text(FILE.format(name=name, corpus=CORPUS))
    run, data = str(tmp_path / "run"), ["--data-dir", str(tmp_path / "data")]
    assert main(["train", str(tmp_path / "config.py"), "--workdir", run, *data]) == 0
    assert main(["generate", run, "--text", "So it is.", "--decoding.form", "speak", "--count", "1"]) == 0
    assert main(["generate", run, "--count", "1"]) == 0
    made = {path.suffix for path in (tmp_path / "run" / "generated").iterdir()}
    assert (tmp_path / "run" / "generated" / "text_1.wav").is_file() and ".txt" in made
    assert main(["evaluate", run, "--utterances", "2", "--judges", "one_stream", "losses"]) == 0
    figures = json.loads((tmp_path / "run" / "figures.json").read_text())
    assert figures["one_stream"]["heard"]["utterances"] == 2
    if name == "speechgpt":
        variables = trained(RunFolder(tmp_path / "run").stage("com"))[1]
        assert flatten_by_path(variables["lora"]) and not flatten_by_path(variables["params"])


def test_the_smallest_have_the_stages_of_the_twins():
    for name in ("speechgpt", "spirit_lm"):
        twin = modules()[name].config("tiny")
        cut_down = smallest(twin.replace(corpus=WorldConfig(hours=0.01)))
        assert [type(one) for one in cut_down.stages] == [type(one) for one in twin.stages]
