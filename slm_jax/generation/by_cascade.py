"""A cascade decoded: each model reads the books that those before it wrote, and writes its own (Borsos et al. 2022).

Ids that are legal at a place are the scheme's affair: units and their end, or the codes of the one book that stands
there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from slm_jax.core.errors import require
from slm_jax.generation.decode import generate
from slm_jax.generation.prompts import row_keys
from slm_jax.generation.rules import Rules
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.schemes.cascade import Cascade
from slm_jax.token_compression.dedup import dedup_row

Mode = Literal["continuation", "acoustic", "unconditional"]
AUDIOLM_SAMPLING = tuple(SamplingConfig(temperature=t, min_new=1) for t in (0.6, 0.8, 0.6))
"""The paper's temperatures; `max_new` of the first is how many units may come, the others know how many codes do."""
Written = dict[str, np.ndarray]
NOTHING = np.zeros(0, np.int32)


class Model(NamedTuple):
    """A decoder of one stream and its parameters (or all its variables)."""

    model: Any
    params: Any


class _Row(NamedTuple):
    """One row of a pass: a clip or a chunk of it, to which `needed` ids are still to be written, at most."""

    clip: int
    books: Written
    needed: int
    key: Key[Array, ""]


def write_cascade(
    cascade: Cascade,
    models: Sequence[Model],
    given: Sequence[Mapping[str, np.ndarray]],
    key: Key[Array, ""] | Key[Array, "B"],
    configs: Sequence[SamplingConfig] = AUDIOLM_SAMPLING,
    *,
    mode: Mode = "continuation",
    frames: int | Sequence[int] | None = None,
) -> list[Written]:
    """The books of every clip: units without repetitions `[S]`, and codes of each book `[T]`.

    `given` of each clip, units frame by frame `[T]` and codes `[T]` by the names of their books:
    "continuation": the units of a prompt and its codes of the books that the second model writes (those of other books
    where they are known); all go on. "acoustic": all units, and the codes that are known; the others are written.
    "unconditional": nothing.
    `frames` of codes, for all clips or each: what was given counted. So many there are in the acoustic mode, where they
    follow from the units unless they are said; in the others no more than these, and fewer where the model that reads
    the units says that they are over.
    One model and one sampling config for each pass; `max_new` counts for units alone, `end` and its kin not at all.
    Chunks of a pass are rows of one batch. A clip gets what it gets alone with its key. Raises `UserError` when
    something is missing, or does not fit.
    """
    passes = len(cascade.passes)
    require(len(models) == passes, "models", len(models), f"the cascade has {passes} passes")
    require(len(configs) == passes, "configs", len(configs), f"the cascade has {passes} passes")
    most = [frames] * len(given) if frames is None or isinstance(frames, int) else list(frames)
    require(len(most) == len(given), "frames", len(most), f"{len(given)} clips are given")
    wanted = [_frames(cascade, one, mode, count) for one, count in zip(given, most, strict=True)]
    clips = [_begun(cascade, one, mode, count) for one, count in zip(given, wanted, strict=True)]
    keys: Any = row_keys(key, len(clips)) if clips else []
    for number, one in enumerate(cascade.passes):
        if mode == "acoustic" and one.writes == (cascade.units,):
            continue
        rows = [
            row
            for clip, (books, count) in enumerate(zip(clips, wanted, strict=True))
            for row in _rows(cascade, number, clip, books, count, jax.random.fold_in(keys[clip], number))
        ]
        ends = mode != "acoustic" and cascade.is_closed(number)
        parts = _written(cascade, number, models[number], rows, configs[number], ends)
        for clip, books in enumerate(clips):
            mine = [part for row, part in zip(rows, parts, strict=True) if row.clip == clip]
            books |= {name: np.concatenate([NOTHING, *(part[name] for part in mine)]) for name in one.writes}
            wanted[clip] = wanted[clip] if cascade.units in one.writes else len(books[one.writes[0]])
    return clips


def _frames(cascade: Cascade, given: Mapping[str, np.ndarray], mode: Mode, frames: int | None) -> int:
    """Frames of codes that a clip gets."""
    if mode == "acoustic" and frames is None:
        _need(cascade, given, (cascade.units,), mode)
        return len(given[cascade.units]) * cascade.frames_per_unit
    require(frames is not None and frames >= 1, "frames", frames, f"the {mode} mode needs a number of them")
    assert frames is not None  # for the type checker
    return frames


def _begun(cascade: Cascade, given: Mapping[str, np.ndarray], mode: Mode, frames: int) -> Written:
    """What is there of a clip before the first model writes."""
    known = () if mode == "unconditional" else (cascade.units, *cascade.sizes_of_codes)
    for name in given:
        require(name in known, "given book", name, f"the {mode} mode takes {', '.join(known) or 'none'}")
    if mode == "unconditional":
        return {}
    first = next((one.writes for one in cascade.passes if cascade.units not in one.writes), ())
    _need(cascade, given, (cascade.units, *(first if mode == "continuation" else ())), mode)
    units = np.asarray(given[cascade.units])
    books = {name: np.asarray(values, np.int32) for name, values in given.items() if name != cascade.units}
    for name, codes in books.items():
        require(len(codes) <= frames, f"frames of {name} that are given", len(codes), f"{frames} are to be written")
        cascade.common_frames(len(units), len(codes))
    return {cascade.units: dedup_row(units)[0].astype(np.int32), **books}


def _need(cascade: Cascade, given: Mapping[str, np.ndarray], names: Sequence[str], mode: Mode) -> None:
    for name in names:
        require(name in given, "given books", ", ".join(given) or "none", f"the {mode} mode needs {name}")


def _rows(cascade: Cascade, number: int, clip: int, books: Written, frames: int, key: Key[Array, ""]) -> list[_Row]:
    """The rows of a pass that belong to a clip."""
    one = cascade.passes[number]
    parts = cascade.chunks(number, books, frames)
    if one.writes == (cascade.units,):
        known = max((len(values) for name, values in books.items() if name != cascade.units), default=0)
        return [_Row(clip, parts[0], (frames - known) // cascade.frames_per_unit, key)]
    size = frames if one.chunk is None else one.chunk
    each = [min(size, frames - place * size) - len(part.get(one.writes[0], ())) for place, part in enumerate(parts)]
    keys = [jax.random.fold_in(key, place) for place in range(len(parts))]
    return [_Row(clip, *row) for row in zip(parts, [count * len(one.writes) for count in each], keys, strict=True)]


def _written(
    cascade: Cascade, number: int, model: Model, rows: Sequence[_Row], config: SamplingConfig, ends: bool
) -> list[Written]:
    """The books that a pass writes of each row, those that were given first; with `ends` it may end them itself."""
    one = cascade.passes[number]
    prompts = [cascade.prompt(number, row.books) for row in rows]
    of_units = cascade.units in one.writes
    needed = [min(row.needed, config.max_new) if of_units else row.needed for row in rows]
    open_rows = [place for place, count in enumerate(needed) if count > 0]
    ids = list(prompts)
    if open_rows:
        config = config.replace(max_new=max(needed), end=None, ends=(), forbidden=())
        config = config if ends else config.replace(min_new=0)
        packed, mask = _packed([prompts[place] for place in open_rows])
        keys = jnp.stack([rows[place].key for place in open_rows])
        rules = rules_of_pass(cascade, number, model.model.config.vocabulary, ends)
        made = generate(model.model, model.params, packed, mask, keys, config, rules=rules)
        new, real = np.asarray(made.ids), np.asarray(made.mask)
        for place, row, kept in zip(open_rows, new, real, strict=True):
            ids[place] = np.concatenate([prompts[place], row[kept][: needed[place]]])
    found = [cascade.books_of(number, row) for row in ids]
    return [{name: books[name] for name in one.writes} for books in found]


def rules_of_pass(cascade: Cascade, number: int, vocabulary: int, ends: bool = True) -> Rules:
    """What a pass may write, step by step from where it begins; raises `UserError` for a model of too few ids.

    `ends`: whether it may say that it is done, where it has learnt to.
    """
    legal, ids = cascade.legal(number, ends and cascade.is_closed(number)), cascade.vocabulary(number)
    require(vocabulary >= ids.size, f"vocabulary of model {number}", vocabulary, f"this pass has {ids.describe()}")
    legal = np.pad(legal, ((0, 0), (0, vocabulary - ids.size)))
    may_end = [ids.eos_id] if legal[:, ids.eos_id].any() else []
    return Rules(legal[:, None], np.array(may_end, np.int32), cycle=len(legal), of_drawn=True)


def _packed(rows: Sequence[Int[np.ndarray, "_"]]) -> tuple[Int[np.ndarray, "B S"], np.ndarray]:
    mask = np.arange(max(map(len, rows))) < np.array([len(row) for row in rows])[:, None]
    ids = np.zeros(mask.shape, np.int32)
    ids[mask] = np.concatenate(rows)
    return ids, mask
