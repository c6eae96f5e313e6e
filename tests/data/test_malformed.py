"""Every kind of malformed input is accounted for by `prepare` with its very reason, and the good ones are all kept."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slm_jax.audio import files
from slm_jax.data.corpora import recordings
from slm_jax.data.corpus import FolderConfig, ManifestConfig, open_corpus, prepare_corpus
from slm_jax.data.prepare import REJECTED, WARNED, read_lines

RATE = 16_000


def speech(seconds=0.6, rate=RATE, channels=1):
    """Something audible that is no pure tone."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 180 * time) + 0.1 * np.sin(2 * np.pi * 700 * time)
    return np.stack([wave * (1 - 0.1 * i) for i in range(channels)], axis=1)


def wav(samples, rate=RATE, subtype="PCM_16"):
    """A function that writes such a file."""
    return lambda path: soundfile.write(os.fsencode(path), samples, rate, format="WAV", subtype=subtype)


def cut(size):
    """A function that writes a whole file and leaves `size` bytes of it."""

    def write(path):
        wav(speech())(path)
        Path(path).write_bytes(Path(path).read_bytes()[:size])

    return write


def floats(value):
    """A float file with one sample that is not a number."""
    samples = speech().astype(np.float32)
    samples[100] = value
    return wav(samples, subtype="FLOAT")


def tiny_rate(path):
    """A header that claims 1 sample per second."""
    data = struct.pack("<40h", *range(0, 4000, 100))
    form = struct.pack("<HHIIHH", 1, 1, 1, 2, 2, 16)
    head = (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt \x10\0\0\0"
        + form
        + b"data"
        + struct.pack("<I", len(data))
    )
    Path(path).write_bytes(head + data)


FILES = {
    "truncated_header.wav": (cut(20), "unreadable"),
    "truncated_data.wav": (cut(6000), "truncated"),
    "text_called.wav": (lambda path: Path(path).write_text("this is no sound\n" * 40), "unreadable"),
    "zero_bytes.wav": (lambda path: Path(path).touch(), "empty_file"),
    "nan.wav": (floats(np.nan), "not_finite"),
    "inf.wav": (floats(np.inf), "not_finite"),
    "far_too_loud.wav": (floats(1e20), "too_loud"),
    "int16_as_float.wav": (wav(speech().astype(np.float32) * 32768, subtype="FLOAT"), "too_loud"),
    "a_little_too_loud.wav": (floats(1.2), None),
    "one_hz.wav": (tiny_rate, "bad_rate"),
    "384_khz.wav": (wav(speech(0.2, 384_000), 384_000), "bad_rate"),
    "ten_ms.wav": (wav(speech(0.01)), "too_short"),
    "too_long.wav": (wav(speech(3.5)), "too_long"),
    "silence.wav": (wav(np.zeros(RATE)), "silent"),
    "dc.wav": (wav(np.full(RATE, 0.25)), "silent"),
    "folder.wav": (lambda path: Path(path).mkdir(), "not_a_file"),
    "dead_link.wav": (lambda path: Path(path).symlink_to("nowhere.wav"), "missing"),
    "8_bit.wav": (wav(speech(), subtype="PCM_U8"), None),
    "24_bit.wav": (wav(speech(), subtype="PCM_24"), None),
    "32_bit.wav": (wav(speech(), subtype="PCM_32"), None),
    "64_bit_float.wav": (wav(speech(), subtype="DOUBLE"), None),
    "six_channels.wav": (wav(speech(channels=6)), None),
    "stereo.wav": (wav(speech(channels=2)), None),
    "8_khz.wav": (wav(speech(rate=8000), 8000), None),
    "22_khz.wav": (wav(speech(rate=22_050), 22_050), None),
    "44_khz.wav": (wav(speech(rate=44_100), 44_100), None),
    "192_khz.wav": (wav(speech(0.3, 192_000), 192_000), None),
    "wav_inside.flac": (wav(speech()), None),
    "žluťoučký 馬 \N{PARTY POPPER}.wav": (wav(speech()), None),
    "new\nline.wav": (wav(speech()), None),
    "quote\"and'backslash\\.wav": (wav(speech()), None),
}
"""File name -> how it is written, and the reason why it is rejected (None: it is accepted)."""


@pytest.fixture(scope="module")
def malformed(tmp_path_factory):
    """The folder of all these files, with a text for every one."""
    folder = tmp_path_factory.mktemp("malformed")
    for name, (write, _) in FILES.items():
        write(folder / name)
        (folder / name).with_suffix(".txt").write_text("hello")
    return folder


@pytest.fixture(scope="module")
def outcome(malformed, tmp_path_factory):
    """Config, data folder, report, reasons by item."""
    config = FolderConfig(path=str(malformed), max_s=3.0, processes=1)
    data = tmp_path_factory.mktemp("data")
    report = prepare_corpus(config, data, progress=False)
    rejected = {row["item"]: row for row in read_lines(Path(report.folder) / REJECTED)}
    return config, data, report, rejected


@pytest.mark.parametrize("name", FILES)
def test_reason(outcome, name):
    config, data, _, rejected = outcome
    item, expected = str(Path(name).with_suffix("")), FILES[name][1]
    assert rejected.get(item, {}).get("reason") == expected
    kept = {i for split in ("train", "dev", "test") for i in open_corpus(config, data, split).ids}
    assert (item in kept) == (expected is None)


def test_nothing_is_lost_and_reasons_are_counted(outcome):
    _, _, report, rejected = outcome
    assert sum(report.accepted.values()) + sum(report.rejected.values()) == len(FILES)
    assert len(rejected) == sum(report.rejected.values())
    assert all(row["detail"] and "\n" not in row["detail"] for row in rejected.values())
    assert set(report.rejected) <= set(recordings.REASONS)
    assert "truncated" in report.to_text() and "rejected: 16" in report.to_text()


def test_accepted_files_sound_the_same_at_16_khz(outcome):
    config, data, _, _ = outcome
    wanted = speech()[:, 0]
    for split in ("train", "dev", "test"):
        source = open_corpus(config, data, split)
        for item in (source[i] for i in range(len(source))):
            samples, count = item["samples"] / 32767.0, min(len(item["samples"]), len(wanted))
            assert item["samples"].dtype == np.int16 and item["text"] == "hello"
            inner = slice(400, count - 400)  # resampling rings at the edges
            agreement = np.corrcoef(samples[inner], wanted[inner])[0, 1]
            assert agreement > 0.99, item["id"]


def test_no_permission(malformed, monkeypatch, tmp_path):
    """As root every file is readable, so the refusal of the system is imitated at the call that asks for it."""
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    record = recordings.read_entry(recordings.Entry("x", str(malformed / "8_bit.wav"), "x"), FolderConfig(path="."))
    assert record["rejected"] == "no_permission"


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_no_permission_really(malformed, tmp_path):
    path = tmp_path / "locked.wav"
    wav(speech())(path)
    path.chmod(0)
    record = recordings.read_entry(recordings.Entry("x", str(path), "x"), FolderConfig(path="."))
    assert record["rejected"] == "no_permission"


LINES = {
    "good": ({"text": "one"}, None, None),
    "not json": ("{audio_filepath: good.wav}", "bad_json", None),
    "cut json": ('{"audio_filepath": "good.wav", "te', "bad_json", None),
    "deep json": ("[" * 100_000, "bad_json", None),
    "not utf-8": (b'{"audio_filepath": "good.wav", "text": "\xff\xfe"}', "bad_encoding", None),
    "a list": (["good.wav"], "not_an_object", None),
    "missing key": ('{"text": "no file"}', "missing_key", None),
    "null text": ({"text": None}, None, "null_text"),
    "empty text": ({"text": "  "}, None, "null_text"),
    "no text": ({}, None, "null_text"),
    "text is a number": ({"text": 5}, "bad_type", None),
    "null path": ({"audio_filepath": None, "text": "x"}, "missing_key", None),
    "path is a list": ({"audio_filepath": ["good.wav"]}, "bad_type", None),
    "path with nul": ({"audio_filepath": "go\0od.wav"}, "bad_type", None),
    "absent file": ({"audio_filepath": "absent.wav", "text": "x"}, "missing", None),
    "duration lies": ({"duration": 5.0, "text": "x"}, None, "duration_differs"),
    "duration is right": ({"duration": 0.6, "text": "x"}, None, None),
    "negative duration": ({"duration": -1, "text": "x"}, "bad_duration", None),
    "nan duration": ('{"audio_filepath": "good.wav", "id": "nan duration", "duration": NaN}', "bad_duration", None),
    "duration is a text": ({"duration": "long", "text": "x"}, "bad_type", None),
    "negative offset": ({"offset": -0.5, "duration": 0.2, "text": "x"}, "bad_offset", None),
    "huge offset": ({"offset": 1e9, "duration": 0.2, "text": "x"}, "bad_offset", None),
    "infinite offset": ({"offset": float("inf"), "text": "x"}, "bad_offset", None),
    "offset": ({"offset": 0.1, "duration": 0.2, "text": "x"}, None, None),
    "stretch past the end": ({"offset": 0.1, "duration": 5.0, "text": "x"}, "bad_duration", None),
    "unknown split": ({"split": "trian", "text": "x"}, "bad_split", None),
    "validation split": ({"split": "Validation", "text": "x"}, None, None),
    "dotted path": ({"audio_filepath": "../GOOD_PARENT/good.wav", "text": "x"}, None, None),
    "absolute path": ({"audio_filepath": "GOOD_ABSOLUTE", "text": "x"}, None, None),
    "new line in name": ({"audio_filepath": "new\nline.wav", "text": "x"}, None, None),
}
"""Manifest line -> its content, the reason why it is rejected, the warning it gets."""


@pytest.fixture(scope="module")
def manifest_outcome(tmp_path_factory):
    """Config, data folder, report and reasons of a manifest with all these lines, with a mark and CRLF."""
    folder, data = tmp_path_factory.mktemp("manifest"), tmp_path_factory.mktemp("data")
    for name in ("good.wav", "new\nline.wav"):
        wav(speech())(folder / name)
    written = []
    for item, (line, _, _) in LINES.items():
        if isinstance(line, dict):
            row = {"audio_filepath": "good.wav", "id": item} | line
            path = row["audio_filepath"]
            if isinstance(path, str):
                parent = path.replace("GOOD_PARENT", folder.name)
                row["audio_filepath"] = parent.replace("GOOD_ABSOLUTE", str(folder / "good.wav"))
            line = json.dumps(row)
        line = json.dumps(line) if isinstance(line, list) else line
        written.append(line if isinstance(line, bytes) else line.encode())
    path = folder / "manifest.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(written) + b"\r\n\r\n")
    config = ManifestConfig(path=str(path), processes=1)
    report = prepare_corpus(config, data, progress=False)
    rejected = {row["item"]: row["reason"] for row in read_lines(Path(report.folder) / REJECTED)}
    warned = {row["item"]: row["reason"] for row in read_lines(Path(report.folder) / WARNED)}
    return config, data, report, rejected, warned


@pytest.mark.parametrize("item", LINES)
def test_manifest_line(manifest_outcome, item):
    config, data, _, rejected, warned = manifest_outcome
    number = f"line {list(LINES).index(item) + 1}"
    _, reason, warning = LINES[item]
    assert rejected.get(item, rejected.get(number)) == reason
    assert warned.get(item) == warning
    kept = {i for split in ("train", "dev", "test") for i in open_corpus(config, data, split).ids}
    assert (item in kept) == (reason is None)


def test_every_line_is_accounted_for(manifest_outcome):
    _, _, report, _, _ = manifest_outcome
    assert sum(report.accepted.values()) + sum(report.rejected.values()) == len(LINES)


def test_a_line_that_lies_about_its_duration_keeps_the_whole_file(manifest_outcome):
    config, data, _, _, _ = manifest_outcome
    sources = [open_corpus(config, data, split) for split in ("train", "dev", "test")]
    lengths = {source.ids[i]: len(source[i]["samples"]) for source in sources for i in range(len(source))}
    assert lengths["duration lies"] == 9600 and lengths["offset"] == 3200
    assert "validation split" in sources[1].ids
