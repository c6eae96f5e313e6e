"""Weight files of other programs, read into the names and the row order that `transformers` gives its models.

A reader takes the bytes of a file and runs nothing in it. The vocabularies that come along become `tokenizers`.
"""

import io
import re
import struct
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LAYER = "model.layers.{}.{}.weight"
EMBEDDING, FINAL_NORM = "model.embed_tokens.weight", "model.norm.weight"


class Llama2cHeader(NamedTuple):
    """The seven numbers that a llama2.c file begins with."""

    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    length: int


def read_llama2c(data: bytes) -> tuple[Llama2cHeader, dict[str, np.ndarray], list[str], list[float]]:
    """Header, tensors, pieces of the vocabulary and their scores.

    After the header follow the tensors of one kind for all layers at a time, then tables of the rotary angles, which
    nobody needs, then the vocabulary. A negative vocabulary size would mean a head of its own: not supported.
    """
    header = Llama2cHeader(*struct.unpack_from("<7i", data))
    if header.vocabulary < 0:
        raise SystemExit("this llama2.c file has a head of its own: only a head that is the token table is supported")
    width, hidden, channels = header.width, header.hidden, header.width // header.heads
    kv_width = header.kv_heads * channels
    kinds = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (kv_width, width),
        "self_attn.v_proj": (kv_width, width),
        "self_attn.o_proj": (width, width),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
        "mlp.up_proj": (hidden, width),
    }
    stream = io.BytesIO(data)
    stream.seek(struct.calcsize("<7i"))
    tensors = {EMBEDDING: _floats(stream, header.vocabulary, width)}
    rotated = {"self_attn.q_proj": header.heads, "self_attn.k_proj": header.kv_heads}
    for kind, shape in kinds.items():
        for layer, value in enumerate(_floats(stream, header.layers, *shape)):
            tensors[LAYER.format(layer, kind)] = halves_first(value, rotated[kind]) if kind in rotated else value
    tensors[FINAL_NORM] = _floats(stream, width)
    _floats(stream, 2, header.length, channels // 2)
    return header, tensors, *_llama2c_vocabulary(stream, header.vocabulary)


def _floats(stream: io.BytesIO, *shape: int) -> np.ndarray:
    return np.frombuffer(stream.read(4 * int(np.prod(shape))), "<f4").reshape(shape)


def _llama2c_vocabulary(stream: io.BytesIO, count: int) -> tuple[list[str], list[float]]:
    """Records of score, length and text; 3 special pieces and 256 bytes come first."""
    stream.read(4)  # the length of the longest piece
    pieces, scores = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))], []
    for index in range(count):
        score, length = struct.unpack("<fi", stream.read(8))
        text = stream.read(length)
        scores.append(score)
        if index >= 259:
            pieces.append(text.decode().replace(" ", "▁"))
    return pieces, scores


def halves_first(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key map from pairs (0, 1), (2, 3) ... that turn together to pairs (i, i + half)."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GGUF_REST = {"token_embd": EMBEDDING, "output_norm": FINAL_NORM}


def read_gguf(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fields, and the tensors of a LLaMA shape in float32, of a GGUF file."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "model.gguf"
        path.write_bytes(data)
        opened = GGUFReader(path)
        fields = {name: field.contents() for name, field in opened.fields.items()}
        heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
        tensors = {}
        for tensor in opened.tensors:
            value = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
            block, _, rest = tensor.name.removesuffix(".weight").rpartition(".")
            if not block:
                tensors[GGUF_REST[rest]] = value
                continue
            name = LAYER.format(block.removeprefix("blk."), GGUF_LAYER[rest])
            tensors[name] = halves_first(value, heads[rest]) if rest in heads else value
    return fields, tensors


CTRANSLATE2_DTYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")
"""In the order of the numbers that stand for them."""
WHISPER_PARTS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
}
"""Of a layer: stored matrix -> the maps that lie in it, one below the other."""
WHISPER_REST = {"position_encodings": "embed_positions", "embeddings": "embed_tokens"}
WHISPER_VARIABLE = re.compile(r"(encoder|decoder)/(?:layer_(\d+)/)?(.+)/(weight|bias|gamma|beta|encodings)")
KINDS = {"gamma": "weight", "beta": "bias", "encodings": "weight"}


def read_ctranslate2(data: bytes) -> dict[str, np.ndarray]:
    """Variables of a Whisper in a CTranslate2 file of version 6, by their names there.

    A text is its length, with a zero byte at its end; a variable its name, shape, dtype and number of bytes.
    """
    stream = io.BytesIO(data)

    def number(code: str) -> int:
        return struct.unpack(f"<{code}", stream.read(struct.calcsize(code)))[0]

    def text() -> str:
        return stream.read(number("H")).rstrip(b"\0").decode()

    version, model, _, count = number("I"), text(), number("I"), number("I")
    if (version, model) != (6, "WhisperSpec"):
        raise SystemExit(f"this CTranslate2 file holds a {model} in version {version}: a WhisperSpec in 6 is supported")
    variables = {}
    for _ in range(count):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = CTRANSLATE2_DTYPES[number("B")]
        variables[name] = np.frombuffer(stream.read(number("I")), dtype).reshape(shape)
    return variables


def whisper_tensors(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of `WhisperForConditionalGeneration`; what is no weight, such as the number of heads, is left out.

    Key maps have no bias there: the zeros that stand for one are checked and dropped.
    """
    tensors = {}
    for name, value in variables.items():
        if (found := WHISPER_VARIABLE.fullmatch(name)) is None:
            continue
        side, layer, part, kind = found.groups()
        names = (WHISPER_REST.get(part, part),) if layer is None else WHISPER_PARTS[part]
        place = f"model.{side}." + ("" if layer is None else f"layers.{layer}.")
        for own, matrix in zip(names, np.split(value, len(names)), strict=True):
            if kind == "bias" and own.endswith("k_proj"):
                if matrix.any():
                    raise SystemExit(f"{name}: a bias of keys, which transformers' Whisper does not have")
                continue
            tensors[f"{place}{own}.{KINDS.get(kind, kind)}"] = matrix
    return tensors


def read_torch(data: bytes) -> dict[str, Any]:
    """A checkpoint of PyTorch as nested dicts of arrays; one that wants to run code is refused."""
    import torch

    def arrays(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: arrays(item) for key, item in value.items()}
        return value.numpy() if isinstance(value, torch.Tensor) else value

    return arrays(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def scored_tokenizer(pieces: list[str], scores: list[float]) -> Tokenizer:
    """LLaMA's tokenizer: the pair whose joined piece has the best score is merged first; unknown text as bytes."""
    known = {piece: index for index, piece in enumerate(pieces)}
    merges = []
    for index in range(259, len(pieces)):
        cuts = ((pieces[index][:at], pieces[index][at:]) for at in range(1, len(pieces[index])))
        ways = [(left, right) for left, right in cuts if left in known and right in known]
        merges += [(-scores[index], known[left], known[right], left, right) for left, right in ways]
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    tokenizer = Tokenizer(models.BPE(vocab=known, merges=pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in pieces[:3]])
    return tokenizer


def byte_pair_tokenizer(pieces: list[str], merges: list[str], special: list[str]) -> Tokenizer:
    """Byte-level BPE whose digits stand alone, as SmolLM2 was trained with."""
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=pairs))
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
    return tokenizer
