"""The language model of pGSLM: read and written under fairseq's names, beside a twin in PyTorch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.family_pgslm import read_config, write_config
from slm_jax.interop.model import export, load
from slm_jax.interop.reference_pgslm import SHAPE, VARIANTS, tiny_pgslm, unit_language_model
from slm_jax.sequence_models.grid import GridConfig
from slm_jax.sequence_models.presets import pgslm, pgslm_continuous
from slm_jax.workbench.parity import compare_folder


@pytest.fixture(scope="module", params=["classes", "reals"])
def folder(request, tmp_path_factory):
    """What somebody has who trained with fairseq: a checkpoint with more in it than weights, and a config beside it."""
    torch = pytest.importorskip("torch")
    made = tiny_pgslm("transformer_ulm", request.param, seed=3)
    path = tmp_path_factory.mktemp("pgslm") / "hub"
    path.mkdir()
    unused = {"decoder.output_projection.weight": torch.zeros(24, 36), "decoder.version": torch.tensor([3.0])}
    weights = {name: torch.tensor(value) for name, value in made.weights.items()} | unused
    torch.save({"model": weights, "args": None}, path / "checkpoint_best.pt")
    (path / "config.json").write_text(json.dumps(made.hub_config))
    return path


def test_a_folder_is_the_reference_layer_by_layer(folder):
    *found, control = compare_folder(folder, 0, "float32")
    for item in found:
        assert {"layer_3", "final_norm", "logits_0", "logits_1", "logits_2"} <= {row.layer for row in item.rows}
        assert [row for row in item.rows if not row.ok or row.max_abs > row.tolerance / 10] == []
    assert control.rows[0].ok, "the negative control is noticed"


def test_what_was_read_is_written_again(folder, tmp_path):
    config, params = load(folder)
    export(config, params, tmp_path / "again")
    found, again = load(tmp_path / "again")
    assert found == config
    same = [np.array_equal(a, b) for a, b in zip(leaves(params), leaves(again), strict=True)]
    assert len(same) > 20
    assert all(same)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_configs_survive_both_ways(variant):
    config = read_config({**SHAPE, **VARIANTS[variant]})
    assert read_config(write_config(config)) == config
    assert config.scaled == 1
    assert config.ignored == ((1, 2) if variant == "no prosody" else ())


def test_published_shapes_are_those_of_the_paper():
    for ours, sizes in ((pgslm(), [104, 25, 36]), (pgslm_continuous(), [104, 1, 1])):
        said = write_config(ours)
        assert said["channel_sizes"] == sizes
        assert (said["decoder_layers"], said["decoder_embed_dim"], said["decoder_ffn_embed_dim"]) == (12, 1024, 4096)


def test_a_config_of_other_streams_is_refused():
    with pytest.raises(UserError, match=r"channel_sizes is \[24, 11\]: must be three"):
        read_config({**SHAPE, "channel_sizes": [24, 11]})
    with pytest.raises(UserError, match="transformer_ulm"):
        write_config(pgslm().replace(blanks=True))


def test_the_loss_of_real_numbers_has_the_gradient_of_the_absolute_error():
    """On a grid so wide that its ends are not felt; its steps make the gradient of what they normalise by 0."""
    torch = pytest.importorskip("torch")
    grid = GridConfig(lowest=-40.0, step=1 / 64, count=5121)
    means, targets = np.array([0.115, -0.42, 0.903], np.float32), np.array([0.5, -1.25, 0.25], np.float32)

    def loss(means):
        logits = grid.logits(means[:, None])
        return -jax.nn.log_softmax(logits, axis=-1)[jnp.arange(3), grid.ids(targets)].sum()

    theirs = torch.tensor(means, requires_grad=True)
    torch.nn.functional.l1_loss(theirs, torch.tensor(targets), reduction="sum").backward()
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(means)), theirs.grad.numpy(), atol=2e-2)


def test_the_twin_has_fairseq_s_names():
    names = unit_language_model({**SHAPE, **VARIANTS["reals"]}).state_dict()
    assert "decoder.proj_other_list.1.bias" in names
    assert "decoder.project_out_dim.weight" in names
    assert "decoder.embed_other_list.0.weight" not in names
