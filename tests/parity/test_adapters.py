"""Adapters against PyTorch: the Q-Former of BLIP-2, whole, in windows and per CTC segment; the others too."""

from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.alignformer import AlignFormerConfig
from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.adapters.qformer import QFormerAdapterConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.core.trees import count_parameters
from slm_jax.core.types import Frames
from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.family_qformer import QFORMER

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
CHANNELS, WIDTH, LM_WIDTH = 12, 16, 10
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "encoder_hidden_size": CHANNELS,
}
LENGTHS = (23, 14)
MASK = np.arange(23) < np.array(LENGTHS)[:, None]
VALUES = np.random.default_rng(0).standard_normal((2, 23, CHANNELS)).astype(np.float32)
FRAMES = Frames(jnp.asarray(np.where(MASK[..., None], VALUES, np.nan)), jnp.asarray(MASK))
"""Two rows; nothing may be read behind the end of the second."""


def redrawn(module):
    """A torch module with weights of a size that lets every part be felt."""
    torch.manual_seed(0)
    with torch.no_grad():
        for path, weight in module.named_parameters():
            if weight.ndim == 1:
                weight.copy_(0.2 * torch.randn_like(weight) + ("norm" in path.lower() and path.endswith("weight")))
            else:
                weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
    return module.eval()


def blip2(**changes):
    return redrawn(transformers.Blip2QFormerModel(transformers.Blip2QFormerConfig(**SHAPE | changes)))


def carried(module) -> tuple:
    """Our config and weights of a `Blip2QFormerModel`, by the table of its family."""
    config = QFORMER.read_config(module.config.to_dict())
    weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    plan = resolve(QFORMER.table(config), {k: v.shape for k, v in weights.items()}, QFORMER.abstract(config))
    return config, import_params(plan, weights.__getitem__)


def dense(linear) -> dict:
    return {"kernel": linear.weight.detach().numpy().T, "bias": linear.bias.detach().numpy()}


def scaled(norm) -> dict:
    return {"scale": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()}


def convolved(conv) -> dict:
    return {"kernel": conv.weight.detach().numpy().transpose(2, 1, 0), "bias": conv.bias.detach().numpy()}


def run(config, params, frames=FRAMES, context=None) -> Frames:
    return jax.jit(config.make().apply)({"params": params}, frames, context)


def tensor(row: int, length: int | None = None):
    """One row as the reference reads it: alone, without padding."""
    return torch.from_numpy(VALUES[row : row + 1, : LENGTHS[row] if length is None else length])


def compare(out: Frames, row: int, wanted) -> None:
    """Real frames of a row of ours against all that the reference makes of the row alone."""
    wanted = wanted[0].detach().numpy()
    assert out.mask[row].sum() == len(wanted) > 0
    assert wanted.std() > 0.1
    np.testing.assert_allclose(out.values[row, : len(wanted)], wanted, atol=TOLERANCE * max(1, np.abs(wanted).max()))


@pytest.fixture(scope="module")
def queries():
    return torch.from_numpy(np.random.default_rng(1).standard_normal((1, 5, WIDTH)).astype(np.float32))


@pytest.mark.parametrize("every", [1, 2])
def test_qformer_equals_blip2(every, queries):
    """Padded on both sides, and row by row; the map is the identity."""
    module = blip2(cross_attention_frequency=every)
    trunk, weights = carried(module)
    assert count_parameters(weights) == sum(p.numel() for p in module.parameters())
    config = QFormerAdapterConfig(width=WIDTH, qformer=trunk, queries=5)
    same = {"kernel": np.eye(WIDTH, dtype=np.float32), "bias": np.zeros(WIDTH, np.float32)}
    out = run(config, {"queries": queries[0].numpy(), "qformer": weights, "map": same})
    with torch.no_grad():
        padded = module(
            queries.expand(2, -1, -1),
            encoder_hidden_states=torch.from_numpy(VALUES),
            encoder_attention_mask=torch.from_numpy(MASK.astype(np.int64)),
        ).last_hidden_state
        unmasked = module(queries.expand(2, -1, -1), encoder_hidden_states=torch.from_numpy(VALUES)).last_hidden_state
        for row in range(2):
            compare(out, row, padded[row : row + 1])
            compare(out, row, module(queries, encoder_hidden_states=tensor(row)).last_hidden_state)
    assert np.abs(out.values[1] - unmasked[1].numpy()).max() > 0.1, "the padding of the second row would be felt"


def test_windows_equal_granite_speech():
    """Its zeros behind the end are looked at; without them it would be another result."""
    module = granite()
    trunk, weights = carried(module.qformer)
    config = WindowQFormerConfig(width=LM_WIDTH, qformer=trunk, window=6, queries=3, tail="pad", fill_seen=True)
    params = {"queries": module.query[0].detach().numpy(), "qformer": weights, "map": dense(module.linear)}
    out = run(config, params)
    unseen = run(config.replace(fill_seen=False), params)
    for row, length in enumerate(LENGTHS):
        wanted = module(tensor(row))
        assert wanted.shape[1] == config.frames_out(length)
        compare(out, row, wanted)
        assert np.abs(unseen.values[row] - out.values[row])[: wanted.shape[1]].max() > 0.05


def granite():
    from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechEncoderProjector

    projector = SHAPE | {"model_type": "blip_2_qformer"}
    lm = {"model_type": "granite", "hidden_size": LM_WIDTH, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = transformers.GraniteSpeechConfig(
        text_config=lm, projector_config=projector, window_size=6, downsample_rate=2, has_lora_adapter=False
    )
    return redrawn(GraniteSpeechEncoderProjector(config))


def test_windows_of_two_encoders_equal_salmonn(queries):
    """Norms of their own, the shorter stream filled up behind its norm, `unfold`, one query, tail dropped."""
    speech, audio = 8, 4
    norms = [redrawn(torch.nn.LayerNorm(n)) for n in (speech, audio)]
    module, project = blip2(cross_attention_frequency=1), redrawn(torch.nn.Linear(WIDTH, LM_WIDTH))
    trunk, weights = carried(module)
    windows = WindowQFormerConfig(width=LM_WIDTH, qformer=trunk, window=5)
    config = ChainConfig(parts=(JoinedConfig(widths=(speech, audio)), windows))
    joined = {"first_norm": scaled(norms[0]), "second_norm": scaled(norms[1])}
    looking = {"queries": queries[0, :1].numpy(), "qformer": weights, "map": dense(project)}
    second = Frames(FRAMES.values[:, :19, speech:], FRAMES.mask[:, :19] & (jnp.arange(19) < jnp.array([[19], [7]])))
    out = run(config, {"parts_0": joined, "parts_1": looking}, Frames(FRAMES.values[..., :speech], FRAMES.mask), second)
    for row, other in enumerate((19, 7)):
        with torch.no_grad():
            first, short = norms[0](tensor(row)[..., :speech]), norms[1](tensor(row, other)[..., speech:])
            x = torch.cat([first, torch.nn.functional.pad(short, (0, 0, 0, first.shape[1] - other))], dim=-1)
            cut = torch.nn.functional.unfold(x.transpose(1, 2).unsqueeze(2), kernel_size=(1, 5), stride=(1, 5))
            cut = cut.view(1, CHANNELS, 5, -1).permute(0, 3, 2, 1).reshape(-1, 5, CHANNELS)
            looked = module(queries[:, :1].expand(len(cut), -1, -1), encoder_hidden_states=cut).last_hidden_state
            compare(out, row, project(looked.reshape(1, -1, WIDTH)))


def test_gated_convolutions_equal_wavllm():
    """Two convolutions with gates, a bottleneck, a map; each row alone in PyTorch."""
    first, second = torch.nn.Conv1d(CHANNELS, 16, 3, 2, 1), torch.nn.Conv1d(8, 20, 3, 2, 1)
    down, up, norm, project = (
        torch.nn.Linear(10, 4),
        torch.nn.Linear(4, 10),
        torch.nn.LayerNorm(10),
        torch.nn.Linear(10, LM_WIDTH),
    )
    for layer in (first, second, down, up, norm, project):
        redrawn(layer)
    layers = ((8, 3, 2, 1), (10, 3, 2, 1))
    config = ConvAdapterConfig(layers=layers, activation="glu", bottleneck=4, projection=LM_WIDTH)
    params = {
        "conv_0": convolved(first),
        "conv_1": convolved(second),
        "bottleneck": {"up": dense(down), "down": dense(up)},
        "bottleneck_norm": scaled(norm),
        "map": dense(project),
    }
    out = run(config, params)
    for row in range(2):
        x = tensor(row).transpose(1, 2)
        for layer in (first, second):
            x = torch.nn.functional.glu(layer(x), dim=1)
        x = x.transpose(1, 2)
        x = x + norm(up(torch.nn.functional.gelu(down(x))))
        compare(out, row, project(x))


def test_plain_convolution_equals_wavprompt():
    layer = redrawn(torch.nn.Conv1d(CHANNELS, LM_WIDTH, 4, 4))
    out = run(ConvAdapterConfig(layers=((LM_WIDTH, 4, 4, 0),)), {"conv_0": convolved(layer)})
    for row in range(2):
        compare(out, row, layer(tensor(row).transpose(1, 2)).transpose(1, 2))


def test_means_equal_qwen_audio():
    norm, project = redrawn(torch.nn.LayerNorm(CHANNELS)), redrawn(torch.nn.Linear(CHANNELS, LM_WIDTH))
    out = run(PoolAdapterConfig(width=LM_WIDTH), {"norm": scaled(norm), "map": dense(project)})
    for row in range(2):
        pooled = torch.nn.functional.avg_pool1d(tensor(row).transpose(1, 2), 2, 2).transpose(1, 2)
        compare(out, row, project(norm(pooled)))


def test_stacks_equal_slam_llm():
    """Five frames side by side, what fills no stack left out."""
    up, project = redrawn(torch.nn.Linear(5 * CHANNELS, 24)), redrawn(torch.nn.Linear(24, LM_WIDTH))
    config = MLPAdapterConfig(width=LM_WIDTH, hidden=24, stack=5)
    out = run(config, {"up": dense(up), "map": dense(project)})
    for row, length in enumerate(LENGTHS):
        x = tensor(row)[:, : length - length % 5].reshape(1, -1, 5 * CHANNELS)
        compare(out, row, project(torch.relu(up(x))))


def test_transformer_equals_torch():
    layer = torch.nn.TransformerEncoderLayer(16, 4, 24, 0.0, "gelu", batch_first=True, norm_first=True)
    last = torch.nn.LayerNorm(16)
    module = redrawn(torch.nn.TransformerEncoder(layer, 2, last, enable_nested_tensor=False))
    first, project = redrawn(torch.nn.Linear(CHANNELS, 16)), redrawn(torch.nn.Linear(16, LM_WIDTH))
    layers = jax.tree.map(lambda *leaves: np.stack(leaves), *map(of_layer, module.layers))
    params = {"inner": dense(first), "stack": {"layers": layers}, "final_norm": scaled(last), "map": dense(project)}
    out = run(TransformerAdapterConfig(width=LM_WIDTH, inner=16, layers=2, heads=4, hidden=24), params)
    for row in range(2):
        compare(out, row, project(module(first(tensor(row)))))


def of_layer(layer) -> dict:
    """Our tree of a `TransformerEncoderLayer`."""
    maps = zip(layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3), strict=True)
    heads = [(w.detach().numpy().T.reshape(16, 4, 4), b.detach().numpy().reshape(4, 4)) for w, b in maps]
    attention = {n: {"kernel": w, "bias": b} for n, (w, b) in zip(("query", "key", "value"), heads, strict=True)}
    out = dense(layer.self_attn.out_proj)
    return {
        "attention": {**attention, "out": {"kernel": out["kernel"].reshape(4, 4, 16), "bias": out["bias"]}},
        "attention_norm": scaled(layer.norm1),
        "mlp": {"up": dense(layer.linear1), "down": dense(layer.linear2)},
        "mlp_norm": scaled(layer.norm2),
    }


def spans(labels: list[int], rule: str) -> list[list[int]]:
    """The frames of each segment of a row, from its runs."""
    runs = [(label, [place for place, _ in group]) for label, group in groupby(enumerate(labels), key=lambda x: x[1])]
    if rule == "runs":
        return [frames for _, frames in runs]
    if rule == "spoken_frames":
        return [[frame] for label, frames in runs if label for frame in frames]
    if rule == "spoken_runs":
        return [frames for label, frames in runs if label]
    starts = [frames[0] for label, frames in runs if label]
    return [list(range(a, b)) for a, b in zip([0, *starts[1:]], [*starts[1:], len(labels)], strict=True)]


@pytest.mark.parametrize("rule", ["runs", "spoken_frames", "spoken_runs", "spoken_spans"])
def test_ctc_compression_equals_groupby(rule):
    head, project = redrawn(torch.nn.Linear(CHANNELS, 3)), redrawn(torch.nn.Linear(CHANNELS, LM_WIDTH))
    config = CTCAdapterConfig(width=LM_WIDTH, segments=CTCSegmentsConfig(vocabulary=3, rule=rule))
    out = run(config, {"segments": {"head": dense(head)}, "map": dense(project)})
    for row in range(2):
        x = tensor(row)
        found = spans(head(x).argmax(-1)[0].tolist(), rule)
        compare(out, row, project(torch.stack([x[0, frames].mean(0) for frames in found])[None]))


@pytest.mark.parametrize("rule", ["runs", "spoken_spans"])
def test_alignformer_equals_a_qformer_per_segment(rule, queries):
    """Two queries for each segment, whose frames a `Blip2QFormerModel` sees alone."""
    head, project = redrawn(torch.nn.Linear(CHANNELS, 4)), redrawn(torch.nn.Linear(WIDTH, LM_WIDTH))
    module = blip2()
    trunk, weights = carried(module)
    segments = CTCSegmentsConfig(vocabulary=4, rule=rule)
    config = AlignFormerConfig(width=LM_WIDTH, segments=segments, qformer=trunk, queries=2)
    params = {
        "queries": queries[0, :2].numpy(),
        "segments": {"head": dense(head)},
        "qformer": weights,
        "map": dense(project),
    }
    out = run(config, params)
    for row in range(2):
        x = tensor(row)
        found = spans(head(x).argmax(-1)[0].tolist(), rule)
        assert len({len(frames) for frames in found}) > 1
        with torch.no_grad():
            looked = [module(queries[:, :2], encoder_hidden_states=x[:, frames]).last_hidden_state for frames in found]
            compare(out, row, project(torch.cat(looked, dim=1)))
