"""The linear quantizer of SpiRit-LM's units against the same layers in PyTorch, in rows of any length, both ways."""

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.types import Frames
from slm_jax.interop.engine import export_params
from slm_jax.interop.family_linear_quantizer import LINEAR_QUANTIZER
from slm_jax.interop.model import load, open_model

torch = pytest.importorskip("torch")

CFG = {"vocab_size": 7, "dim": 24, "upstream_dim": 26}
LENGTHS = (40, 23)


def units_of(scores: np.ndarray) -> np.ndarray:
    """One row: the likeliest class, a blank as the unit that was said last; those in front as the first one said."""
    said, last = [], None
    for one in scores.argmax(-1):
        last = last if one == CFG["vocab_size"] else one
        said.append(last)
    first = next(one for one in said if one is not None)
    return np.asarray([first if one is None else one for one in said])


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """The layers with drawn weights, loud on the blank, and a folder with the checkpoint as it is released."""
    torch.manual_seed(1)
    excess = CFG["upstream_dim"] - CFG["vocab_size"] - 1
    widths = [CFG["dim"], CFG["dim"] - excess // 4, CFG["dim"] - excess // 2, CFG["vocab_size"] + 1]
    layers = []
    for given, made in pairwise(widths):
        layers += [torch.nn.Linear(given, made), torch.nn.LeakyReLU()]
    model = torch.nn.Sequential(*layers[:-1]).eval()
    with torch.no_grad():
        model[-1].bias[-1] += 0.4
    folder = tmp_path_factory.mktemp("quantizer")
    (folder / "config.json").write_text(json.dumps(CFG))
    torch.save({"model_cfg": CFG, "model_weight": model.state_dict()}, folder / "L11_quantizer_500.pt")
    return model, folder


def test_scores_and_units_of_padded_rows_are_those_of_each_alone(twin):
    model, folder = twin
    config, params = load(folder)
    values = 2 * np.random.default_rng(0).standard_normal((2, max(LENGTHS), CFG["dim"])).astype(np.float32)
    mask = jnp.arange(max(LENGTHS)) < jnp.asarray(LENGTHS)[:, None]
    given = Frames(jnp.asarray(np.where(np.asarray(mask)[..., None], values, 1e3)), mask)
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    scores = config.make().apply(variables, given)
    units = config.make().apply(variables, given, method="encode")
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            wanted = model(torch.from_numpy(values[row, :length])).numpy()
        np.testing.assert_allclose(scores[row, :length], wanted, atol=1e-5)
        np.testing.assert_array_equal(units.ids[row, :length, 0], units_of(wanted))
        blanks = wanted.argmax(-1) == CFG["vocab_size"]
        assert 3 < blanks.sum() < length and not np.asarray(units.ids[row, length:]).any()
    assert np.asarray(scores[:, 0]).argmax(-1).max() <= CFG["vocab_size"]


def test_weights_go_back_to_the_bit(twin):
    model, folder = twin
    opened, (config, params) = open_model(folder), load(folder)
    assert opened.family is LINEAR_QUANTIZER and LINEAR_QUANTIZER.write_config(config) in (
        CFG,
        CFG | {"upstream_dim": 27},
    )
    written = dict(export_params(LINEAR_QUANTIZER.table(config), params))
    wanted = {name: value.numpy() for name, value in model.state_dict().items()}
    assert written.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)
