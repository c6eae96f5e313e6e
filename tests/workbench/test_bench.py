import importlib.util

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.workbench.bench import BenchSettings, Job, Timing, figures, floor, interleaved, largest_difference, measure

CEILINGS = {"gflop_s": 100.0, "gbyte_s": 10.0}
HAS_TORCH = importlib.util.find_spec("torch") is not None and importlib.util.find_spec("transformers") is not None
HAS_FAISS = importlib.util.find_spec("faiss") is not None
HAS_MOSHI = importlib.util.find_spec("moshi") is not None
SLOW = pytest.mark.slow(seconds=15)


def job_of(ours: float, theirs: float, called: list[str] | None = None, **fields) -> Job:
    """Both sides give a constant and note that they were called."""
    called = [] if called is None else called

    def way(name: str, value: float):
        def run():
            called.append(name)
            return {"x": np.full(3, value, np.float32)}

        return run

    return Job(way("ours", ours), {"reference": way("reference", theirs)}, flops=2e9, bytes=1e6, **fields)


def run(job: Job, **settings):
    return measure("case", job, BenchSettings(**settings), CEILINGS, lambda: None)


def test_a_row_holds_what_readers_rely_on():
    row = run(job_of(1.0, 1.0), pairs=2)
    assert row["case"] == "case" and row["reference"] == "reference" and row["pairs"] == 2 and row["equal"]
    assert row["ours_ms"] >= 0 and row["reference_ms"] >= 0 and row["compile_s"] >= 0
    assert row["ratio_p10"] <= row["ratio"] <= row["ratio_p90"]
    assert row["floor_ms"] == pytest.approx(20.0) and row["load_before"] >= 0


def test_outputs_that_differ_are_not_timed():
    called: list[str] = []
    row = run(job_of(1.0, 1.001, called))
    assert row["equal"] is False and row["max_difference"] == pytest.approx(1e-3, rel=1e-3)
    assert row["ours_ms"] is None and row["ratio"] is None
    assert called == ["ours", "reference"]


def test_every_reference_way_is_compared():
    job = job_of(1.0, 1.0)
    wrong = {**job.references, "other": lambda: {"x": np.zeros(3, np.float32)}}
    assert run(Job(job.ours, wrong, 1.0, 1.0))["equal"] is False


def test_a_job_with_a_state_is_compared_over_several_runs():
    """Equal at first, different after one step."""
    values = iter((1.0, 2.0))
    job = job_of(1.0, 1.0, compared=2)
    row = run(Job(lambda: {"x": np.full(3, next(values), np.float32)}, job.references, 1.0, 1.0, compared=2))
    assert row["equal"] is False and row["max_difference"] == 1.0


def test_bfloat16_is_shown_but_not_judged():
    row = run(job_of(1.0, 1.001), dtype="bfloat16", pairs=1)
    assert row["equal"] is None and row["tolerance"] is None and row["max_difference"] > 0 and row["ratio"] > 0


def test_the_quickest_reference_meets_ours():
    job, slow = job_of(1.0, 1.0), np.linalg.svd

    def slowly():
        slow(np.random.default_rng(0).standard_normal((300, 300)))
        return job.references["reference"]()

    row = run(Job(job.ours, {"slow": slowly, "quick": job.references["reference"]}, 1.0, 1.0), pairs=1)
    assert row["reference"] == "quick" and row["tried_ms"]["slow"] > row["tried_ms"]["quick"]


def test_sides_take_turns_in_going_first():
    called: list[str] = []
    job = job_of(1.0, 1.0, called)
    done = []
    pairs = list(interleaved(job.ours, job.references["reference"], 3, lambda: done.append(1)))
    assert called == ["ours", "reference", "reference", "ours", "ours", "reference"]
    assert len(pairs) == len(done) == 3


def test_figures_are_medians_and_the_spread_of_the_ratio_within_pairs():
    pairs = [
        (Timing(1.0, 2.0), Timing(2.0, 3.0)),
        (Timing(2.0, 2.0), Timing(4.0, 3.0)),
        (Timing(4.0, 2.0), Timing(4.0, 3.0)),
    ]
    found = figures(pairs)
    assert found["ours_ms"] == 2000 and found["reference_ms"] == 4000 and found["ratio"] == 2.0
    assert found["ratio_p10"] == pytest.approx(1.2) and found["ratio_p90"] == 2.0
    assert found["ours_cpu_ms"] == 2000 and found["reference_cpu_ms"] == 3000


@pytest.mark.parametrize(
    ("flops", "size", "milliseconds", "by"), [(1e9, 1e6, 10.0, "flops"), (1e6, 1e9, 100.0, "bytes")]
)
def test_the_floor_is_the_larger_of_arithmetic_and_traffic(flops, size, milliseconds, by):
    found = floor(Job(dict, {}, flops, size), CEILINGS)
    assert found["floor_ms"] == pytest.approx(milliseconds) and found["floor_by"] == by


def test_differences():
    ones, ids = np.ones(3, np.float32), np.arange(3)
    assert largest_difference({"x": ones}, {"x": 10 * ones}) == (9.0, pytest.approx(1e-3))
    assert largest_difference({"i": ids + 1}, {"i": ids}) == (1.0, 0.0)
    assert largest_difference({"x": ones, "i": ids}, {"x": ones, "i": ids[::-1].copy()})[0] == 2.0
    assert largest_difference({"x": np.full(3, np.nan, np.float32)}, {"x": ones})[0] == np.inf
    with pytest.raises(UserError, match="outputs"):
        largest_difference({"x": ones}, {"y": ones})
    with pytest.raises(UserError, match="the reference has"):
        largest_difference({"x": ones}, {"x": np.ones(4, np.float32)})


@pytest.mark.parametrize(("field", "value"), [("pairs", 0), ("dtype", "float16")])
def test_settings_are_checked(field, value):
    with pytest.raises(UserError, match=field):
        BenchSettings(**{field: value})


@pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch and transformers")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("hubert_base_4x10s", marks=pytest.mark.slow(seconds=30)),
        "hifigan_v1_10s",
        "llama_160m_train",
        "gpt2_small_generate",
        "whisper_base_transcribe_8",
        pytest.param("musicgen_12x768_generate", marks=SLOW),
        pytest.param("moshi_12x768_generate", marks=SLOW),
        pytest.param("audiolm_coarse_generate", marks=SLOW),
        "mimi_encode_10s",
        *(
            pytest.param(name, marks=[SLOW, pytest.mark.skipif(not HAS_MOSHI, reason="needs Kyutai's package")])
            for name in ("mimi_stream_80ms", "moshi_mimi_frame_80ms")
        ),
        *(pytest.param(name, marks=SLOW) for name in ("mimi_decode_10s", "encodec_encode_10s", "encodec_decode_10s")),
        *(pytest.param(f"dac_16khz_{way}_10s", marks=SLOW) for way in ("encode", "decode")),
        pytest.param("encodec_gan_train", marks=pytest.mark.slow(seconds=60)),
    ],
)
def test_both_sides_compute_the_same(name):
    """Small shapes through the whole path; two steps of training, all ways of generating."""
    from slm_jax.workbench.bench_cases import run_case

    row = run_case(name, BenchSettings(quick=True, pairs=1), CEILINGS, lambda: None)
    assert row["equal"], row
    assert row["ratio"] > 0 and row["gflop"] > 0 and row["gbyte"] > 0


@pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch and transformers")
@pytest.mark.parametrize("family", ["mimi", *(pytest.param(name, marks=SLOW) for name in ("encodec", "dac"))])
def test_codes_that_are_compared_are_many_and_what_is_heard_is_loud(family):
    """Codebooks as their classes make them are zeros, and then any codec agrees with any other."""
    from slm_jax.interop.reference_bench_codecs import coding
    from slm_jax.workbench.bench_codecs import SHAPES
    from slm_jax.workbench.bench_shapes import QUICK

    samples = 0.1 * np.random.default_rng(0).standard_normal((1, 2_400)).astype(np.float32)
    job, codes = coding(family, SHAPES[family] | QUICK[family], samples, decodes=True, compiled=False)
    assert all(len(np.unique(column)) > 12 for column in codes[0].T)
    assert job.ways["eager"]()["samples"].std() > 0.05


def test_a_few_codes_of_equal_distance_may_differ_and_no_more():
    from slm_jax.workbench.bench_codecs import other_codes, sound

    codes = np.arange(1000).reshape(1, 125, 8)
    assert other_codes({"codes": codes}, {"codes": np.where(codes < 5, -1, codes)}) == (0.005, 0.01)
    late = np.zeros((1, 9), np.float32)
    late[0, 8] = 1.0
    assert sound({"samples": late}, {"samples": late[:, :8]})[0] == 0.0


@pytest.mark.skipif(not (HAS_TORCH and HAS_FAISS), reason="needs faiss")
def test_units_are_those_of_exact_search():
    from slm_jax.workbench.bench_cases import run_case

    row = run_case("kmeans_assign_500", BenchSettings(quick=True, pairs=1), CEILINGS, lambda: None)
    assert row["equal"] and row["max_difference"] == 0.0


def test_shares_of_the_peak_are_told_where_it_is_known():
    from slm_jax.parallel.chips import CHIPS
    from slm_jax.workbench.bench_cases import shares_of_peak

    row = {"dtype": "bfloat16", "ours_ms": 10.0, "reference_ms": 20.0, "gflop": 4947.0}
    assert shares_of_peak(row, CHIPS["h100"]) == pytest.approx({"mfu": 0.5, "reference_mfu": 0.25})
    assert shares_of_peak(row, None) == shares_of_peak(row | {"dtype": "float32"}, CHIPS["h100"]) == {}


def test_an_unknown_case_is_named_with_the_nearest_one():
    from slm_jax.workbench.bench_cases import BESIDE, CASES, chosen

    assert set(CASES) - set(BESIDE) <= set(chosen(())) <= set(CASES)
    with pytest.raises(UserError, match="did you mean 'gpt2_small_train'"):
        chosen(("gpt2_small_trian",))


@pytest.mark.skipif(not HAS_TORCH, reason="needs PyTorch")
def test_the_machine_and_its_ceilings():
    from slm_jax.workbench.bench_machine import ceilings, machine, processor

    about = machine()
    assert about["cores"] >= 1 and about["devices"] and about["versions"]["jax"] and len(about["load"]) == 3
    assert processor()
    limits = ceilings(repeats=1, size=128, megabytes=4)
    assert limits["gflop_s"] > 0 and limits["gbyte_s"] > 0
