"""`docs/coming_from_pytorch.md` as a reader would work through it: every block, as written, in its order."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli.main import main

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

PAGE = Path(__file__).parents[2] / "docs" / "coming_from_pytorch.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.py)\n")


def blocks():
    """(language, text) of every fenced block."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what the page takes for granted: a downloaded model, and recordings in each split."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    shape = transformers.LlamaConfig(**sizes, **heads, max_position_embeddings=128, initializer_range=0.3)
    transformers.LlamaForCausalLM(shape).save_pretrained("pytorch/smollm2")
    words = tokenizers.models.WordLevel({f"word{number}": number for number in range(61)}, unk_token="word0")
    tokenizers.Tokenizer(words).save("pytorch/smollm2/tokenizer.json")
    draws = np.random.default_rng(0)
    for number in range(16):
        steps = np.repeat(draws.uniform(0.02, 0.4, 10), 800)
        write_wav(Path("speech") / f"take_{number}.wav", 0.1 * np.sin(np.cumsum(steps)), 16_000)
    return tmp_path


@pytest.mark.slow(seconds=60)
def test_every_block_runs_as_written(desk, capsys):
    names: dict = {}
    for number, (language, text) in enumerate(blocks(), start=1):
        if language == "bash":
            for line in text.splitlines():
                program, switch, package, *argv = shlex.split(line)
                assert (program, switch, package) == ("python", "-m", "slm_jax")
                assert main(argv) == 0, f"block {number}: {line}\n{capsys.readouterr().err}"
        elif file := FILE.match(text):
            Path(file[1]).write_text(text, encoding="utf-8")
        else:
            exec(compile(text, f"{PAGE.name}, block {number}", "exec"), names)
    assert Path("exported/unit_lm/model.safetensors").is_file()


def test_the_page_has_blocks_of_both_kinds_and_no_other():
    assert {language for language, _ in blocks()} == {"python", "bash"}
    assert len(blocks()) >= 10


def test_what_the_page_names_exists():
    root = PAGE.parents[1]
    assert list(root.glob("configs/speech/twist_*.py"))
    assert (root / "experiments" / "twist_warm_start" / "README.md").is_file()
