"""Preparation: the report, the cache, interruptions, several processes, and sets of TensorFlow Datasets."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import shuffle

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data import prepare
from slm_jax.data.corpora.spool import Spool
from slm_jax.data.corpus import (
    FolderConfig,
    ManifestConfig,
    NamedCorpusConfig,
    SeveralCorporaConfig,
    TFDSConfig,
    open_corpus,
    parse_corpus,
    prepare_corpus,
)


def noise(seed, count):
    return (3000 * np.random.default_rng(seed).standard_normal(count)).astype(np.int16)


@pytest.fixture
def manifest(tmp_path):
    """A manifest of seventy short clips: three parts."""
    rows = []
    for i in range(70):
        soundfile.write(tmp_path / f"{i}.wav", noise(i, 2000 + i), 16_000)
        rows.append({"audio_filepath": f"{i}.wav", "text": str(i)})
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def everything(config, folder):
    """All records of all splits, of which there must be seventy."""
    sources = [open_corpus(config, folder, split) for split in ("train", "dev", "test")]
    assert sum(map(len, sources)) == 70
    return [source[i] for source in sources for i in range(len(source))]


def test_report_as_json_and_text(manifest, tmp_path):
    with manifest.open("a") as file:
        file.write('{"audio_filepath": "absent.wav"}\n')
    report = prepare_corpus(ManifestConfig(path=str(manifest), processes=1), tmp_path / "data", progress=False)
    assert json.loads(json.dumps(report.to_json()))["rejected"] == {"missing": 1}
    assert prepare.read_report(Path(report.folder)) == report
    text = report.to_text()
    assert f"corpus manifest:{manifest}" in text and "missing: no such file" in text and "all" in text
    assert sum(report.hours.values()) == pytest.approx(sum(2000 + i for i in range(70)) / 16_000 / 3600)
    assert report.seconds > 0 and not report.cached


def test_an_interrupted_preparation_goes_on(manifest, tmp_path, monkeypatch):
    """Stopped after two of three parts, the second call reads the last part only and ends with the same dataset."""
    config, read = ManifestConfig(path=str(manifest), processes=1), []
    original = prepare.recordings.read_entries

    def stopping(job):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(job)
        return original(job)

    monkeypatch.setattr(prepare.recordings, "read_entries", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(config, tmp_path / "data", progress=False)
    assert not list((tmp_path / "data").rglob("report.json"))
    read.clear()
    prepare_corpus(config, tmp_path / "data", progress=False)
    assert len(read) == 1
    monkeypatch.undo()
    prepare_corpus(config, tmp_path / "whole", progress=False)
    np.testing.assert_equal(everything(config, tmp_path / "data"), everything(config, tmp_path / "whole"))


def test_who_comes_while_it_is_made_waits_and_makes_nothing(manifest, tmp_path, monkeypatch):
    config, data = ManifestConfig(path=str(manifest), processes=1), tmp_path / "data"
    begun, go_on, made = threading.Event(), threading.Event(), []
    make = prepare._make_parts

    def slowly(*arguments):
        begun.set()
        assert go_on.wait(60)
        made.append(make(*arguments))

    monkeypatch.setattr(prepare, "_make_parts", slowly)
    monkeypatch.setattr(prepare.log, "warning", lambda *_: go_on.set())  # said when the second begins to wait
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare_corpus, config, data, progress=False)
        assert begun.wait(60)
        second = pool.submit(prepare_corpus, config, data, progress=False)
        assert [first.result().cached, second.result().cached] == [False, True]
    assert len(made) == 1 and everything(config, data)
    assert not (data / "parts").exists()


def test_a_split_of_any_size_is_written_without_tensorflow(manifest, tmp_path, monkeypatch):
    """More than TFDS keeps in memory: its own way would then ask for TensorFlow."""
    config = ManifestConfig(path=str(manifest), processes=1)
    prepare_corpus(config, tmp_path / "whole", progress=False)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1000)
    prepare_corpus(config, tmp_path / "data", progress=False)
    np.testing.assert_equal(everything(config, tmp_path / "data"), everything(config, tmp_path / "whole"))
    assert not list((tmp_path / "data").rglob("*.tmp*")) and shuffle.Shuffler is not Spool
    with pytest.raises(ValueError, match="come in order"):
        Spool(tmp_path, "", True).add(1, b"")


def test_several_processes_read_the_same(manifest, tmp_path):
    config = ManifestConfig(path=str(manifest), processes=2)
    prepare_corpus(config, tmp_path / "two", progress=False)
    prepare_corpus(config.replace(processes=1), tmp_path / "one", progress=False)
    np.testing.assert_equal(everything(config, tmp_path / "two"), everything(config, tmp_path / "one"))


class Tiny(tfds.core.GeneratorBasedBuilder):
    """A speech set as others would have made it: 8 kHz, two channels, own names, a split called validation."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = epath.Path(__file__)

    def _info(self):
        features = {
            "speech": tfds.features.Tensor(shape=(None, 2), dtype=np.int16),
            "transcript": tfds.features.Text(),
            "speaker_id": np.int64,
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name, n) for name, n in (("train", 40), ("validation", 3))}

    def _generate_examples(self, split, count):
        for i in range(count):
            mono = noise(i, 4000) if i != 2 else np.zeros(4000, np.int16)
            text = "" if i == 1 else f"{split} {i}"
            yield i, {"speech": np.stack([mono, mono], axis=1), "transcript": text, "speaker_id": i % 3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of the prepared set."""
    builder = Tiny(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


def test_a_tfds_set(tiny, tmp_path):
    config = TFDSConfig(name=str(tiny), source_rate_hz=8000, processes=1, test_share=0.1, dev_share=0.0)
    report = prepare_corpus(config, tmp_path, progress=False)
    assert report.rejected == {"silent": 2} and report.warnings == {"null_text": 2}
    assert sum(report.accepted.values()) == 41 and report.accepted["dev"] == 2 and report.accepted["test"] == 0
    source = open_corpus(config, tmp_path, "train")
    item = source[source.ids.index("train-5")]
    assert (item["text"], item["speaker"], len(item["samples"])) == ("train 5", "2", 8000)
    power = np.abs(np.fft.rfft(item["samples"].astype(float))) ** 2
    assert power[: len(power) // 2].sum() > 0.97 * power.sum()  # it was 8 kHz
    assert prepare_corpus(config, tmp_path, progress=False).cached


def test_what_a_tfds_set_lacks_is_said(tiny, tmp_path):
    with pytest.raises(UserError, match=r"does not declare the rate of 'speech': set source_rate_hz"):
        prepare_corpus(TFDSConfig(name=str(tiny)), tmp_path, progress=False)
    with pytest.raises(UserError, match=r"audio_key is 'speach'.*did you mean 'speech'"):
        prepare_corpus(TFDSConfig(name=str(tiny), audio_key="speach"), tmp_path, progress=False)
    with pytest.raises(UserError, match=r"not a known set \(did you mean 'librispeech'"):
        prepare_corpus(parse_corpus("tfds:librispeach"), tmp_path, progress=False)


def test_a_tfds_set_without_random_access_is_refused(tiny, tmp_path):
    folder = tmp_path / "tiny" / "1.0.0"
    shutil.copytree(tiny, folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="is stored as tfrecord: only array_record"):
        prepare_corpus(TFDSConfig(name=str(folder), source_rate_hz=8000), tmp_path / "data", progress=False)


def test_tfds_says_that_it_needs_tensorflow(tmp_path):
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install tensorflow-cpu"):
            prepare_corpus(parse_corpus("tfds:librispeech"), tmp_path, progress=False)
    else:
        pytest.skip("tensorflow is installed: nothing is missing")


def test_configs_name_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="min_s is 5"):
        FolderConfig(path=str(tmp_path), min_s=5.0, max_s=1.0)
    with pytest.raises(UserError, match="the name of a TFDS set is missing"):
        TFDSConfig(name="")
    with pytest.raises(UserError, match="processes is -1"):
        FolderConfig(path=str(tmp_path), processes=-1)


def test_unchanged_settings_in_another_order_of_processes_share_a_folder(manifest, tmp_path):
    first = prepare_corpus(ManifestConfig(path=str(manifest), processes=1), tmp_path / "data", progress=False)
    second = prepare_corpus(ManifestConfig(path=str(manifest), processes=3), tmp_path / "data", progress=False)
    assert second.cached and second.folder == first.folder


def test_several_corpora_are_prepared_and_opened_as_one(manifest, tmp_path):
    one = ManifestConfig(path=str(manifest), processes=1)
    short = ManifestConfig(path=str(manifest), processes=1, max_s=2050 / 16_000)
    both = SeveralCorporaConfig(
        corpora=(NamedCorpusConfig(name="whole", corpus=one), NamedCorpusConfig(name="short", corpus=short))
    )
    assert from_json(both.to_json()) == both
    report = prepare_corpus(both, tmp_path / "data", progress=False)
    parts = [prepare_corpus(part, tmp_path / "data") for part in (one, short)]
    assert [part.cached for part in parts] == [True, True]
    assert report.accepted == {split: sum(part.accepted[split] for part in parts) for split in report.accepted}
    assert report.rejected == parts[1].rejected
    assert sum(report.hours.values()) == pytest.approx(sum(sum(part.hours.values()) for part in parts))
    assert prepare_corpus(both, tmp_path / "data").cached
    source = open_corpus(both, tmp_path / "data", "train")
    assert [len(places) for places in source.places.values()] == [part.accepted["train"] for part in parts]
    last, alone = source[len(source) - 1], open_corpus(short, tmp_path / "data", "train")
    assert last["id"] == f"short/{alone[len(alone) - 1]['id']}" == source.ids[-1]
    np.testing.assert_array_equal(last["samples"], alone[len(alone) - 1]["samples"])
    assert source.seconds[-1] == alone.seconds[-1]
    assert both.identity() == both.replace(test_share=0.3).identity()
    with pytest.raises(UserError, match="all names different"):
        both.replace(corpora=both.corpora[:1] * 2)


def test_corpora_of_several_rates_or_channels_do_not_go_together(tmp_path):
    one, two = (FolderConfig(path=str(tmp_path), rate_hz=rate) for rate in (24_000, 44_100))
    pair = NamedCorpusConfig(name="a", corpus=one), NamedCorpusConfig(name="b", corpus=two)
    with pytest.raises(
        UserError, match=r"rate_hz of the corpora is \{'a': 24000, 'b': 44100\}: all must have the same"
    ):
        SeveralCorporaConfig(corpora=pair)
    with pytest.raises(UserError, match="channels of the corpora"):
        SeveralCorporaConfig(corpora=(pair[0], NamedCorpusConfig(name="b", corpus=one.replace(channels=2))))
    whole = SeveralCorporaConfig(corpora=pair[:1])
    assert whole.rate_hz == 24_000 and from_json(whole.to_json()) == whole
    with pytest.raises(UserError, match="rate_hz is 22050: its corpora have 24000"):
        SeveralCorporaConfig(corpora=pair[:1], rate_hz=22_050)


def test_a_tfds_set_at_another_rate_with_its_channels(tiny, tmp_path):
    config = TFDSConfig(name=str(tiny), source_rate_hz=8000, processes=1, rate_hz=24_000, channels=2)
    assert prepare_corpus(config, tmp_path, progress=False).accepted["train"] == 39
    item = open_corpus(config, tmp_path, "train")[3]
    assert item["samples"].shape == (12_000, 2)
    np.testing.assert_array_equal(item["samples"][:, 0], item["samples"][:, 1])
    report = prepare_corpus(config.replace(channels=2, rate_hz=8000), tmp_path, progress=False)
    assert report.rejected == {"silent": 2}
    with pytest.raises(UserError, match="43 x wrong_channels"):
        prepare_corpus(config.replace(channels=3), tmp_path, progress=False)


@pytest.mark.parametrize("damage", [Path.unlink, lambda shard: shard.write_bytes(bytes(shard.stat().st_size))])
def test_a_damaged_shard_is_named(manifest, tmp_path, damage):
    config = ManifestConfig(path=str(manifest), processes=1)
    prepare_corpus(config, tmp_path / "data", progress=False)
    (shard,) = (tmp_path / "data").rglob("*train.array_record*")
    damage(shard)
    with pytest.raises(UserError, match=f"shard .*{shard.name}"):
        open_corpus(config, tmp_path / "data", "train")[0]
