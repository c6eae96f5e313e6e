"""A causal stage of Bark: read alone and out of a whole one, with biases and without, written and read again."""

from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.family_bark import read_config
from slm_jax.interop.model import export, load
from slm_jax.interop.reference import draw_weights
from slm_jax.workbench.parity import compare_folder

IDS, PLACES = 41, 24
STAGE = {"input_vocab_size": IDS, "output_vocab_size": IDS, "block_size": PLACES}
STAGE |= {"hidden_size": 36, "num_layers": 2, "num_heads": 3}


def folder_of(tmp_path: Any, bias: bool) -> Any:
    transformers = pytest.importorskip("transformers")
    theirs = draw_weights(transformers.BarkCoarseModel(transformers.BarkCoarseConfig(**STAGE, bias=bias)), 3)
    theirs.save_pretrained(tmp_path / "stage")
    return theirs, tmp_path / "stage"


@pytest.mark.parametrize("bias", [True, False])
def test_every_layer_is_the_references_and_what_is_written_is_read(tmp_path, bias):
    _, folder = folder_of(tmp_path, bias)
    found = list(compare_folder(folder, 0, "float32"))
    assert [row for item in found[:-1] for row in item.rows if not row.ok or row.max_abs > 1e-5] == []
    assert found[-1].rows[0].ok, "the negative control is noticed"
    config, params = load(folder)
    assert config.norm_bias == config.mlp_bias == bias
    export(config, params, tmp_path / "out", family="bark")
    again, same = load(tmp_path / "out")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_it_writes_what_the_reference_writes(tmp_path):
    import torch

    theirs, folder = folder_of(tmp_path, False)
    config, params = load(folder)
    ids = np.random.default_rng(0).integers(0, IDS, (2, 5))
    wanted = torch.tensor(ids)
    with torch.no_grad():
        for _ in range(8):
            wanted = torch.cat([wanted, theirs(wanted).logits[:, -1:].argmax(-1)], 1)
    greedy = SamplingConfig(max_new=8, temperature=0.0)
    made = generate(config.make(), params, ids.astype(np.int32), np.ones(ids.shape, bool), jax.random.key(0), greedy)
    np.testing.assert_array_equal(made.ids, wanted[:, 5:])


def test_out_of_a_whole_bark_its_coarse_stage_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    stages = {name: {**STAGE, "bias": False} for name in ("semantic_config", "coarse_acoustics_config")}
    fine = {**STAGE, "n_codes_total": 3, "n_codes_given": 1}
    codec = {"num_filters": 4, "hidden_size": 12, "codebook_size": 32, "upsampling_ratios": [4, 2]}
    codec |= {"target_bandwidths": [30.0], "num_lstm_layers": 1, "model_type": "encodec"}
    config = transformers.BarkConfig(**stages, fine_acoustics_config=fine, codec_config=codec)
    theirs = transformers.BarkModel(config)
    theirs.save_pretrained(tmp_path / "bark")
    found, params = load(tmp_path / "bark")
    assert (found.vocabulary, found.layers, found.norm_bias) == (IDS, 2, False)
    table = theirs.coarse_acoustics.input_embeds_layer.weight.detach().numpy()
    np.testing.assert_array_equal(params["tokens"]["embedding"], table)


def test_a_stage_that_writes_other_ids_than_it_reads_is_refused():
    with pytest.raises(UserError, match="output_vocab_size is 10048: must be input_vocab_size 129600"):
        read_config({"model_type": "semantic", "input_vocab_size": 129_600, "output_vocab_size": 10_048})
