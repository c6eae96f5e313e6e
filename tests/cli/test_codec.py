"""`codec`: recordings to files of codes and back, folders of them, one clear error for what cannot be."""

import json

import numpy as np
import pytest
import soundfile

from slm_jax.assemblies.codec import settled
from slm_jax.assemblies.codec_files import write_codes
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.cli import codec
from slm_jax.cli.main import main
from slm_jax.core.errors import UserError
from slm_jax.interop.codecs import load_codec
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from tests.codecs import CODECS, drawn_variables

MODEL = CODECS["over spectra"].replace(
    quantizer=ResidualVQConfig(width=12, books=3, codebook=CodebookConfig(size=24, width=12))
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model folder, another one, a recording."""
    here = tmp_path_factory.mktemp("codec")
    for name, seed in (("one", 0), ("other", 1)):
        save_model(here / name, *settled(MODEL, drawn_variables(MODEL, seed)))
    tone = 0.3 * np.sin(np.arange(9001) * 0.2) + 0.1 * np.random.default_rng(0).standard_normal(9001)
    soundfile.write(here / "a.wav", tone, 16_000)
    return here


def run(folders, *words):
    return codec.main([str(folders / word) if "." in word or word in ("one", "other") else word for word in words])


def test_there_and_back(folders, capsys):
    made = run(folders, "encode", "one", "a.wav", "a.codes")
    (row,) = made["files"]
    frames = -(-9001 // MODEL.hop)
    assert (row["frames"], row["books"]) == (frames, 3)
    assert row["bits_per_second"] == pytest.approx(frames * 15 * 16_000 / 9001, rel=0.01)  # 5 bits for each of 24 codes
    assert "3 codes" in capsys.readouterr().out
    run(folders, "decode", "one", "a.codes", "b.wav")
    samples, rate = soundfile.read(folders / "b.wav", dtype="float32")
    model = load_codec(folders / "one")
    original, _ = soundfile.read(folders / "a.wav", dtype="float32")
    wanted = model.decode(model.encode(original), len(original))
    assert rate == 16_000 and len(samples) == 9001
    np.testing.assert_allclose(samples, np.clip(wanted, -1, 1), atol=1e-4)


def test_fewer_books_are_a_lower_bitrate(folders):
    one = run(folders, "encode", "one", "a.wav", "c.codes", "--books", "1")["files"][0]
    assert one["books"] == 1 and one["bits_per_second"] < 0.4 * MODEL.bits_per_second()
    run(folders, "decode", "one", "c.codes", "c.wav")


def test_a_folder_goes_whole_and_what_cannot_be_read_is_said(folders, capfd):
    (folders / "in" / "deep").mkdir(parents=True)
    (folders / "in" / "deep" / "a.wav").write_bytes((folders / "a.wav").read_bytes())
    (folders / "in" / "broken.wav").write_bytes(b"nothing")
    code = main(["codec", "encode", str(folders / "one"), str(folders / "in"), str(folders / "out"), "--json"])
    told = json.loads(capfd.readouterr().out)
    assert code == 1 and (folders / "out" / "deep" / "a.codes").is_file()
    assert sum("error" in row for row in told["files"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("decode", "other", "a.codes", "d.wav"), "made by other weights"),
        (("decode", "one", "a.wav", "d.wav"), "is no file of codes"),
        (("encode", "one", "absent.wav", "d.codes"), "no such file or folder"),
        (("encode", "one", "a.wav", "d.codes", "--books", "9"), "the quantizer has 3"),
        (("encode", "one", "a.wav", "d.codes", "--stage", "codec"), "is no run folder"),
        (("encode", "a.wav", "a.wav", "d.codes"), "there is no such folder"),
    ],
)
def test_what_does_not_fit_is_one_error(folders, words, message):
    run(folders, "encode", "one", "a.wav", "a.codes")
    with pytest.raises(UserError, match=message):
        run(folders, *words)


def test_bad_samples_and_codes_are_refused(folders):
    model = load_codec(folders / "one")
    with pytest.raises(UserError, match="nothing to encode"):
        model.encode(np.zeros(0, np.float32))
    with pytest.raises(UserError, match="must be finite"):
        model.encode(np.full(100, np.nan, np.float32))
    with pytest.raises(UserError, match=r"codes is \[24\]: must be in"):
        model.decode(np.full((4, 3), 24))
    with pytest.raises(UserError, match="K up to 3"):
        model.decode(np.zeros((4, 4), int))
    together = model.encode_rows([np.ones(400, np.float32), np.linspace(-1, 1, 900).astype(np.float32)])
    np.testing.assert_array_equal(together[0], model.encode(np.ones(400, np.float32)))


def test_two_recordings_of_one_name_are_refused_before_anything_is_written(folders):
    for name in ("a.wav", "a.flac"):
        (folders / "two").mkdir(exist_ok=True)
        soundfile.write(folders / "two" / name, np.zeros(400), 16_000)
    with pytest.raises(UserError, match="both would be written to one file"):
        codec.main(["encode", str(folders / "one"), str(folders / "two"), str(folders / "out_two")])
    assert not (folders / "out_two").exists()


def test_a_file_that_cannot_be_finished_leaves_nothing(folders, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    model = load_codec(folders / "one")
    monkeypatch.setattr("zipfile.ZipFile.writestr", full)
    (folders / "full").mkdir()
    with pytest.raises(OSError, match="No space left"):
        write_codes(folders / "full" / "a.codes", model, model.encode(np.ones(400, np.float32)), 400)
    assert not list((folders / "full").iterdir())
