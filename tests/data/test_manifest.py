"""Manifests: what is kept of a line, splits, duplicates, and when a corpus is made again."""

import json

import numpy as np
import pytest
import soundfile

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data.corpora.manifest import read_manifest
from slm_jax.data.corpora.splits import split_of
from slm_jax.data.corpus import ManifestConfig, open_corpus, parse_corpus, prepare_corpus


@pytest.fixture
def manifest(tmp_path):
    """A manifest of twelve clips in two voices."""
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        soundfile.write(tmp_path / f"{i}.flac", 0.1 * rng.standard_normal(4000 + 100 * i), 16_000)
        rows.append({"audio_filepath": f"{i}.flac", "duration": (4000 + 100 * i) / 16_000, "text": f"clip  {i}"})
        rows[-1] |= {"id": f"clip-{i}", "speaker": i % 2, "lang": "nl", "translation": f"übersetzt {i}"}
    return write(tmp_path / "manifest.jsonl", rows)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fields_and_splits(manifest, tmp_path):
    config = ManifestConfig(path=str(manifest), processes=1, test_share=0.3, dev_share=0.2)
    report = prepare_corpus(config, tmp_path / "data", progress=False)
    assert report.accepted == {
        split: sum(split_of(f"clip-{i}", config) == split for i in range(12)) for split in ("train", "dev", "test")
    }
    source = open_corpus(config, tmp_path / "data", "train")
    item = source[0]
    number = int(item["id"].removeprefix("clip-"))
    stored, _ = soundfile.read(manifest.parent / f"{number}.flac", dtype="int16")
    assert np.abs(item["samples"].astype(int) - stored).max() <= 1
    assert (item["text"], item["speaker"], item["lang"]) == (f"clip {number}", str(number % 2), "nl")
    assert item["extra"] == {"translation": f"übersetzt {number}"} and item["kind"] == "recording"
    assert source.seconds[0] == pytest.approx(len(stored) / 16_000)


def test_a_manifest_may_carry_its_own_splits(manifest, tmp_path):
    rows = rows_of(manifest)
    for i, row in enumerate(rows):
        row["split"] = ("train", "valid", "test")[i % 3]
    config = ManifestConfig(path=str(write(manifest, rows)), processes=1)
    assert prepare_corpus(config, tmp_path / "data", progress=False).accepted == {"train": 4, "dev": 4, "test": 4}


def test_duplicate_ids_keep_the_first(manifest, tmp_path):
    rows = rows_of(manifest)
    rows[5]["id"] = rows[7]["id"] = "clip-1"
    config = ManifestConfig(path=str(write(manifest, rows)), processes=1)
    report = prepare_corpus(config, tmp_path / "data", progress=False)
    assert report.rejected == {"duplicate_id": 2} and sum(report.accepted.values()) == 10
    listing = read_manifest(config)
    assert [entry.path for entry in listing.entries if entry.id == "clip-1"] == [str(manifest.parent / "1.flac")]


def test_ids_default_to_path_and_offset(manifest):
    rows = [{"audio_filepath": "0.flac"}, {"audio_filepath": "0.flac", "offset": 0.1, "duration": 0.05}]
    listing = read_manifest(ManifestConfig(path=str(write(manifest, rows))))
    assert [entry.id for entry in listing.entries] == ["0.flac", "0.flac@0.1"] and not listing.rejected


def test_texts_can_be_required(manifest, tmp_path):
    rows = rows_of(manifest)
    rows[3]["text"] = None
    del rows[4]["text"]
    path = str(write(manifest, rows))
    strict = prepare_corpus(ManifestConfig(path=path, processes=1, require_text=True), tmp_path / "d", progress=False)
    lenient = prepare_corpus(ManifestConfig(path=path, processes=1), tmp_path / "d", progress=False)
    assert strict.rejected == {"null_text": 2} and strict.warnings == {}
    assert lenient.warnings == {"null_text": 2} and lenient.rejected == {}


def test_made_again_when_the_manifest_or_a_file_changes(manifest, tmp_path):
    config = ManifestConfig(path=str(manifest), processes=1)
    first = prepare_corpus(config, tmp_path / "data", progress=False)
    assert prepare_corpus(config, tmp_path / "data", progress=False).cached
    soundfile.write(manifest.parent / "0.flac", 0.1 * np.random.default_rng(9).standard_normal(9000), 16_000)
    second = prepare_corpus(config, tmp_path / "data", progress=False)
    assert not second.cached and second.folder != first.folder and second.warnings == {"duration_differs": 1}


def test_a_prepared_corpus_outlives_its_recordings(manifest, tmp_path):
    config = parse_corpus(f"manifest:{manifest}")
    prepare_corpus(config.replace(processes=1), tmp_path / "data", progress=False)
    manifest.unlink()
    assert len(open_corpus(from_json(config.to_json()), tmp_path / "data", "train"))
    with pytest.raises(UserError, match="no such file"):
        prepare_corpus(config, tmp_path / "data", progress=False)


def test_nothing_usable_is_an_error_that_counts_the_reasons(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"audio_filepath": "absent.wav"}, {"text": "x"}])
    with pytest.raises(UserError, match="no usable item, 1 x missing, 1 x missing_key"):
        prepare_corpus(ManifestConfig(path=str(path), processes=1), tmp_path / "data", progress=False)
    empty = write(tmp_path / "e.jsonl", [])
    with pytest.raises(UserError, match="it is empty"):
        prepare_corpus(ManifestConfig(path=str(empty), processes=1), tmp_path / "data", progress=False)
