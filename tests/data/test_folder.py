"""Folders: formats, texts, speakers."""

import numpy as np
import pytest
import soundfile

from slm_jax.core.errors import UserError
from slm_jax.data.corpora.folder import read_folder
from slm_jax.data.corpus import FolderConfig, open_corpus, parse_corpus, prepare_corpus

FORMATS = {
    "a.wav": ("WAV", "PCM_16", 16_000),
    "b.flac": ("FLAC", "PCM_16", 22_050),
    "c.ogg": ("OGG", "VORBIS", 44_100),
    "d.opus": ("OGG", "OPUS", 48_000),
    "e.mp3": ("MP3", "MPEG_LAYER_III", 44_100),
    "f.WAV": ("WAV", "FLOAT", 8000),
    "g.aif": ("AIFF", "PCM_16", 16_000),
}


def tone(rate, seconds=0.5):
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)


@pytest.fixture
def folder(tmp_path):
    """One second of the same tone in every format, below two speakers."""
    for i, (name, (kind, subtype, rate)) in enumerate(FORMATS.items()):
        path = tmp_path / "speech" / f"speaker{i % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(rate), rate, format=kind, subtype=subtype)
        path.with_suffix(".txt").write_text(f"text of {name}\n", encoding="utf-8-sig" if i == 0 else "utf-8")
    (tmp_path / "speech" / "notes.md").write_text("not audio")
    return tmp_path / "speech"


def test_all_formats_with_their_texts(folder, tmp_path):
    config = FolderConfig(path=str(folder), processes=1, test_share=0.0, dev_share=0.0)
    report = prepare_corpus(config, tmp_path / "data", progress=False)
    source = open_corpus(config, tmp_path / "data", "train")
    assert report.accepted["train"] == len(source) == len(FORMATS) and not report.rejected
    for item in (source[i] for i in range(len(source))):
        name = item["id"].split("/")[1]
        assert item["text"].startswith(f"text of {name}.") and item["speaker"] == item["id"].split("/")[0]
        assert abs(len(item["samples"]) - 8000) <= 1200  # mp3 and opus pad
        spectrum = np.abs(np.fft.rfft(item["samples"][2000:6000] / 32768.0))
        assert abs(np.argmax(spectrum) * 4 - 440) <= 4


def test_a_missing_text_and_one_name_in_two_formats(folder):
    (folder / "speaker0" / "a.txt").unlink()
    soundfile.write(folder / "speaker0" / "a.flac", tone(16_000), 16_000)
    (folder / "speaker1" / "b.txt").write_bytes(b"\xff\xfe\xff")
    listing = read_folder(FolderConfig(path=str(folder)))
    assert {entry.id for entry in listing.entries if entry.text is None} == {"speaker0/a"}
    assert [(r.item, r.reason) for r in listing.rejected] == [
        ("speaker1/b.flac", "bad_encoding"),
        ("speaker0/a", "duplicate_id"),
    ]


def test_a_changed_text_changes_the_fingerprint(folder):
    config = parse_corpus(f"folder:{folder}")
    before = read_folder(config).fingerprint
    assert read_folder(config).fingerprint == before
    (folder / "speaker0" / "a.txt").write_text("something else")
    assert read_folder(config).fingerprint != before


def test_an_empty_folder_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no usable item, it is empty"):
        prepare_corpus(FolderConfig(path=str(tmp_path / "empty")), tmp_path / "data", progress=False)


def test_files_that_are_not_read_are_counted_by_suffix(folder, tmp_path):
    for name in ("one.m4a", "two.M4A", "three.wma"):
        (folder / name).write_bytes(b"sound of a kind that nobody here decodes")
    config = FolderConfig(path=str(folder), processes=1)
    report = prepare_corpus(config, tmp_path / "data", progress=False)
    assert report.unread == {".m4a": 2, ".wma": 1} and not report.rejected
    assert "not read: 2 x .m4a, 1 x .wma" in report.to_text()
    assert prepare_corpus(config, tmp_path / "data", progress=False).to_text().count("not read") == 1
    for path in folder.glob("speaker*/*"):
        path.unlink()
    with pytest.raises(UserError, match=r"no usable item, 2 x \.m4a, which is not read"):
        prepare_corpus(config, tmp_path / "data", progress=False)
