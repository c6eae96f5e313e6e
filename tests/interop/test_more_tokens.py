"""A text LM gets more special tokens: its tokenizer knows them, old ids and rows stay, other folders are refused."""

import json

import numpy as np
import pytest

from slm_jax.checkpoints.model_folder import load_model
from slm_jax.cli.main import main
from slm_jax.core.errors import UserError
from slm_jax.interop.model import export, load
from slm_jax.interop.more_tokens import with_tokens
from slm_jax.text.tokenizers import TokenizerFileConfig
from tests.cli.test_convert import CONFIG, drawn
from tests.text.subwords import write_subwords

TAGS = ("<|keyword|>", "<|loudness|>")


@pytest.fixture
def folder(tmp_path):
    """A LLaMA with a row for each of the 270 ids of its tokenizer, and two rows more."""
    config = CONFIG.replace(vocabulary=272)
    place = export(config, drawn(config), tmp_path / "hub")
    write_subwords(place / "tokenizer.json", 270)
    return place


def test_old_ids_and_rows_stay(folder, tmp_path):
    tags = (*TAGS, "<|third|>")
    config = with_tokens(str(folder), tmp_path / "more", tags)
    old, (found, params) = load(folder)[1], load_model(tmp_path / "more")
    assert found == config and config.vocabulary == 273, "two rows were there already"
    np.testing.assert_array_equal(params["tokens"]["embedding"][:272], old["tokens"]["embedding"])
    before, after = (
        TokenizerFileConfig(path=str(place / "tokenizer.json")).make() for place in (folder, tmp_path / "more")
    )
    assert after.encode("a cat") == before.encode("a cat")
    assert after.encode_marked("".join(tags)) == [270, 271, 272]
    assert after.encode(TAGS[0]) == before.encode(TAGS[0]), "spelt out in a text it is text"


def test_typed_and_once_more(folder, tmp_path, capfd):
    argv = ["convert", str(folder), str(tmp_path / "more"), "--add-tokens", *TAGS, "--json"]
    assert main(argv) == 0
    assert json.loads(capfd.readouterr().out)["carried"] == ["tokenizer.json"]
    again = with_tokens(str(tmp_path / "more"), tmp_path / "again", ["<|third|>"])
    assert again.vocabulary == 273


def test_what_cannot_learn_tokens_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"tokens is \['</s>'\]: the tokenizer knows them already"):
        with_tokens(str(folder), tmp_path / "more", ["<|new|>", "</s>"])
    with pytest.raises(UserError, match="one at least, all different"):
        with_tokens(str(folder), tmp_path / "more", [TAGS[0], TAGS[0]])
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json of the source is no tokenizer file"):
        with_tokens(str(folder), tmp_path / "more", TAGS)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="a text LM without a tokenizer cannot learn more tokens"):
        with_tokens(str(folder), tmp_path / "more", TAGS)
    assert not (tmp_path / "more").exists()
