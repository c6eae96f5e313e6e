"""Published weights under our models: the same tokens as `transformers`, the same speech as PyTorch's HiFi-GAN.

The folders come from `experiments/fetch/real_weights.py`; the environment variable names where they are.
"""

import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.files import resample
from slm_jax.checkpoints.model_folder import load_model, open_stored
from slm_jax.data.corpora.world_voice import RATE_HZ, Speaker, Voice
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.model import export, load, open_model
from slm_jax.interop.readers import open_weights
from slm_jax.interop.streaming import import_streamed

REAL_WEIGHTS = os.environ.get("SLM_JAX_REAL_WEIGHTS", "")
ROOT = Path(__file__).parents[2]
NEW = 64

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    not REAL_WEIGHTS, reason="SLM_JAX_REAL_WEIGHTS does not name a folder made by experiments/fetch/real_weights.py"
)

PROMPTS = (
    "Once upon a time there was a little fox",
    "One day, Tom went to the park with his dad.",
    "The old lighthouse keeper",
    "Lily found a shiny stone in the garden. She",
    "It was raining and",
    "A bird sat on the roof and sang.",
    "\"Can I have a cookie?\" asked Ben.",
    "The cat and the mouse were best friends.",
    "In the morning the children",
    "There was a big red ball",
    "Mia was afraid of the dark, but",
    "The sun",
    "A small boat sailed over the sea to",
    "My favourite colour is",
    "Sam had a toy car. He liked to",
    "The wind blew so hard that the hat",
    "Grandma baked a cake for",
    "Two frogs lived in a pond. The first frog said",
    "Nobody knew why the door",
    "I",
)  # fmt: skip
"""Of 2 to 14 tokens, so that rows are padded to different lengths."""


@pytest.fixture(autouse=True)
def one_thread():
    """A reference that waits for a second core is many times slower where other jobs keep that busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def folder_of(name: str) -> Path:
    """The folder of one model."""
    folder = Path(REAL_WEIGHTS) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: fetch it with experiments/fetch/real_weights.py")
    return folder


def prompts(folder: Path) -> list[list[int]]:
    """The prompts in the model's own tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in PROMPTS]


def our_tokens(folder: Path, rows: list[list[int]]) -> list[list[int]]:
    """Greedy continuations of all prompts in one padded batch."""
    config, params = load(folder)
    mask = np.arange(max(map(len, rows))) < np.array([len(row) for row in rows])[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(rows)
    sampling = SamplingConfig(max_new=NEW, temperature=0.0)
    return np.asarray(generate(config.make(), params, ids, mask, jax.random.key(0), sampling).ids).tolist()


def their_tokens(folder: Path, rows: list[list[int]]) -> list[list[int]]:
    """Greedy continuations of all prompts, padded on the left as `generate` wants it; the end token ends nothing."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    settings = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 0}
    return model.generate(ids, attention_mask=mask, **settings)[:, longest:].tolist()


def same_greedy_tokens(name: str) -> None:
    """All continuations agree, and they are not all alike."""
    folder = folder_of(name)
    rows = prompts(folder)
    wanted = their_tokens(folder, rows)
    assert len(set(map(tuple, wanted))) == len(PROMPTS) == 20 and all(len(row) == NEW for row in wanted)
    assert our_tokens(folder, rows) == wanted


def test_stories15m_tells_the_same_stories():
    same_greedy_tokens("stories15m")


@pytest.mark.slow(seconds=240)
def test_smollm2_writes_the_same_text():
    same_greedy_tokens("smollm2-135m-instruct")


def test_stories15m_has_the_same_logits_after_going_there_and_back(tmp_path):
    """hub -> model folder -> hub: bytes of the weights, and logits by `transformers` and by us."""
    from transformers import AutoModelForCausalLM

    folder = folder_of("stories15m")
    import_streamed(open_model(folder), tmp_path / "ours", {})
    config, stored = open_stored(tmp_path / "ours")
    export(config, stored, tmp_path / "back")
    before, after = open_weights(folder), open_weights(tmp_path / "back")
    assert before.shapes == after.shapes
    for name in before.shapes:
        np.testing.assert_array_equal(after.read(name), before.read(name), err_msg=name)
    ids = np.array([prompts(folder)[6]])
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(tmp_path / "back")(torch.tensor(ids)).logits.numpy()
    _, params = load_model(tmp_path / "ours")
    ours = np.asarray(jax.jit(config.make().apply)({"params": params}, jnp.asarray(ids, jnp.int32)))
    assert np.abs(ours - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.fixture(scope="module")
def comparison():
    """The script behind `experiments/hifigan_resynthesis`."""
    path = ROOT / "experiments" / "hifigan_resynthesis" / "resynthesise.py"
    spec = importlib.util.spec_from_file_location("resynthesise", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hifigan_speaks_as_well_as_pytorchs(comparison):
    pytest.importorskip("pesq")
    speech = Voice().speak("the small boat sailed slowly over the quiet sea", speed=1.0, speaker=Speaker("a"), seed=[0])
    rate_hz = 22_050
    samples = resample(speech.samples, RATE_HZ, rate_hz)[: 2 * rate_hz]
    figures, _ = comparison.compare(folder_of("hifigan-v1-ljspeech"), {"voice": 0.9 * samples / np.abs(samples).max()})
    row = figures["recordings"]["voice"]
    print(row)
    assert row["largest_difference_on_the_same_mels"] <= 1e-4 * max(1.0, row["largest_sample"])
    assert abs(row["ours"]["pesq"] - row["pytorch"]["pesq"]) < 0.01
    assert abs(row["ours"]["stoi"] - row["pytorch"]["stoi"]) < 0.001
    assert row["pytorch"]["stoi"] > 0.9 and row["largest_sample"] > 0.1
