"""LoRA of the real `peft` on tiny LLaMA and Qwen2: its files read, ours read by it, and a step of training in both."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.model import load
from slm_jax.interop.peft import export_peft, load_peft
from slm_jax.nn.lora import LoRAConfig, merge_lora, with_lora
from slm_jax.sequence_models.decoder_config import DecoderConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

SHAPE = {"vocab_size": 41, "hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 6}
SHAPE |= {"num_key_value_heads": 2, "intermediate_size": 50, "max_position_embeddings": 24}
CASES = {
    "llama": ("Llama", {}, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    "qwen2": (
        "Qwen2",
        {"tie_word_embeddings": True},
        {"r": 3, "lora_alpha": 7, "use_rslora": True, "target_modules": "all-linear"},
    ),
}
"""name -> prefix of the classes, changes of the shape, the adapter."""
IDS = np.random.default_rng(0).integers(3, 41, (3, 9))
MASK = np.arange(9) < np.array([[9], [5], [2]])
RATE = 0.3


class Pair(NamedTuple):
    """The adapted reference and its folders, our config and base weights, the adapter as we read it."""

    theirs: Any
    hub: Path
    folder: Path
    base: DecoderConfig
    params: dict
    config: LoRAConfig
    lora: dict


def reference(name: str) -> Any:
    kind, changes, _ = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **changes})
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.fixture(params=CASES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    theirs = reference(request.param)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(folder / "hub")
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(task_type="CAUSAL_LM", **CASES[request.param][2]))
    with torch.no_grad():  # as they are born, B is zero and an adapter that is not there would pass
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(folder / "peft")
    base, params = load(folder / "hub")
    config, lora = load_peft(folder / "peft", base)
    params, lora = (jax.tree.map(jnp.asarray, tree) for tree in (params, lora))
    return Pair(theirs, folder / "hub", folder / "peft", base, params, config, lora)


def their_logits(model: Any) -> np.ndarray:
    positions = torch.tensor(np.maximum(MASK.cumsum(1) - 1, 0))
    with torch.no_grad():
        return model(torch.tensor(IDS), attention_mask=torch.tensor(MASK.astype(np.int64)), position_ids=positions)[
            0
        ].numpy()


def our_logits(pair: Pair, lora: Any) -> np.ndarray:
    model = with_lora(pair.base.make(), pair.config)
    run = jax.jit(lambda variables: model.apply(variables, jnp.array(IDS), mask=jnp.array(MASK)))
    return np.asarray(run({"params": pair.params, "lora": lora}))


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference over real entries, as a share of the largest logit."""
    return float(np.abs(one - other)[MASK].max() / np.abs(other[MASK]).max())


def test_files_of_peft_give_the_same_logits(pair):
    wanted = their_logits(pair.theirs)
    assert apart(our_logits(pair, pair.lora), wanted) < 1e-5
    plain = jax.tree.map(jnp.zeros_like, pair.lora)
    assert apart(our_logits(pair, plain), wanted) > 0.01, "the adapter has no effect"
    merged = pair._replace(params=merge_lora(pair.params, pair.lora, pair.config))
    assert apart(our_logits(merged, plain), wanted) < 1e-5


def test_what_the_config_says_is_kept(pair):
    settings = CASES["llama" if not pair.config.rslora else "qwen2"][2]
    assert (pair.config.rank, pair.config.alpha) == (settings["r"], settings["lora_alpha"])
    layers = pair.lora["blocks"]["layers"]
    assert set(layers["attention"]) == ({"query", "key", "value", "out"} if pair.config.rslora else {"query", "value"})
    assert layers["attention"]["query"]["default"]["b"].shape == (3, pair.config.rank, 6, 6)


def test_what_we_write_is_read_by_peft(pair, tmp_path):
    generator = np.random.default_rng(3)
    lora = jax.tree.map(lambda leaf: 0.2 * generator.standard_normal(leaf.shape).astype(np.float32), pair.lora)
    folder = export_peft(tmp_path / "ours", pair.base, pair.config, lora, base_name=str(pair.hub))
    base = transformers.AutoModelForCausalLM.from_pretrained(pair.hub, dtype=torch.float32).eval()
    theirs = peft.PeftModel.from_pretrained(base, folder).eval()
    assert apart(our_logits(pair, lora), their_logits(theirs)) < 1e-5
    assert apart(our_logits(pair, lora), our_logits(pair, pair.lora)) > 0.01
    config, back = load_peft(folder, pair.base)
    assert config == pair.config
    for path, leaf in flatten_by_path(lora).items():
        np.testing.assert_array_equal(flatten_by_path(back)[path], leaf)


def test_one_step_of_training_moves_both_alike(pair, tmp_path):
    theirs = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(pair.hub, dtype=torch.float32), pair.folder, is_trainable=True
    )
    theirs.eval()
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    logits = theirs(torch.tensor(IDS)).logits
    their_loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 41), torch.tensor(IDS[:, 1:]).reshape(-1))
    their_loss.backward()
    torch.optim.SGD(trained, lr=RATE).step()
    theirs.save_pretrained(tmp_path / "stepped")

    model = with_lora(pair.base.make(), pair.config)

    def loss(lora):
        logits = model.apply({"params": pair.params, "lora": lora}, jnp.array(IDS))
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], jnp.array(IDS[:, 1:])).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(pair.lora)
    ours = jax.tree.map(lambda leaf, gradient: leaf - RATE * gradient, pair.lora, gradients)
    assert float(value) == pytest.approx(float(their_loss.detach()), rel=1e-5)
    before, after = flatten_by_path(pair.lora), flatten_by_path(load_peft(tmp_path / "stepped", pair.base)[1])
    for path, leaf in flatten_by_path(ours).items():
        moved = np.abs(after[path] - before[path]).max()
        assert moved > 1e-5, path
        np.testing.assert_allclose(leaf, after[path], atol=1e-5, err_msg=path)
        assert np.abs(np.asarray(leaf) - after[path]).max() < 1e-3 * moved, path
