"""Plans of a small step, made by the TPU compiler on this machine, against closed forms."""

import dataclasses
import functools
import importlib.util

import pytest

from slm_jax.core.errors import UserError
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.workbench.plan import figures, gathered, gradient_stages, plan_stage, settings_of, topology_for, trace
from slm_jax.workbench.plan_fit import advice, fit
from tests.workbench.small_plan import FSDP, LAYERS, LENGTH, PER_LAYER, TABLES, VOCABULARY, WIDTH, small_run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed, which compiles for TPUs"
)
BATCH, DEVICES = 8, 4
LARGE = 8192


@functools.cache
def planned(rules="ddp", batch=BATCH, **changes):
    """The plan of the small model on v5e:2x2."""
    run = small_run(batch=batch, mesh=FSDP if rules == "fsdp" else MeshConfig(), **changes)
    stage = run.stage("lm")
    return plan_stage(run, stage, topology_for(stage, "v5e:2x2"), silent)


def silent(text):
    """Says nothing."""


def test_flops_of_a_dense_decoder():
    tokens, targets = BATCH * LENGTH, BATCH * (LENGTH - 1)
    products = 6 * tokens * LAYERS * PER_LAYER + 6 * targets * VOCABULARY * WIDTH
    attention = 6 * 2 * BATCH * LAYERS * LENGTH * LENGTH * WIDTH
    for remat in (False, True):
        run = small_run(remat=remat)
        flops = trace(run, run.stage("lm"), topology_for(run.stage("lm"), "v5e:2x2")).flops
        assert flops.model == pytest.approx(products + attention, rel=0.01)
        assert flops.open_loops == 0
    assert flops.recomputed > products / 5
    assert planned("ddp").flops == planned("fsdp").flops


def test_exchanges_of_ddp_are_one_sum_of_all_gradients():
    moved = planned("ddp").compiled.traffic.links
    weights = LAYERS * PER_LAYER + TABLES
    print(moved)
    assert moved["all-reduce"] == pytest.approx(2 * 4 * weights * (DEVICES - 1) / DEVICES, rel=0.2)
    assert moved["all-gather"] + moved["reduce-scatter"] + moved["collective-permute"] == 0


def fsdp_exchanges(layers, table, devices):
    """Bytes to gather weights for the way there and back, and to scatter their gradients.

    Products read bfloat16, so that weights are turned before they travel, their gradients are float32. The table of
    tokens travels as it is, and only once: nothing is differentiated with respect to tokens.
    """
    share = (devices - 1) / devices
    return share * (2 * 2 * (layers + table) + 4 * table), share * 4 * (layers + table)


def test_exchanges_of_fsdp_gather_weights_twice_and_scatter_gradients_once():
    moved = planned("fsdp").compiled.traffic.links
    gathered_bytes, scattered = fsdp_exchanges(LAYERS * PER_LAYER, TABLES / 2, DEVICES)
    print(moved, gathered_bytes, scattered)
    assert moved["all-gather"] == pytest.approx(gathered_bytes, rel=0.2)
    assert moved["reduce-scatter"] == pytest.approx(scattered, rel=0.2)
    assert moved["collective-permute"] == 0


@pytest.mark.parametrize("rules", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow(seconds=40))])
def test_between_two_slices_each_device_sums_its_share_of_the_gradients(rules):
    """Over the network goes a part of each sum; under fsdp the table's gradient, a scatter, goes there whole."""
    mesh = (FSDP if rules == "fsdp" else MeshConfig()).replace(slices=2)
    run = small_run(batch=2 * BATCH, mesh=mesh)
    plan = plan_stage(run, run.stage("lm"), topology_for(run.stage("lm"), "v5e:2x2"), silent)
    table = TABLES / 2
    shared = LAYERS * PER_LAYER + TABLES - (table if rules == "fsdp" else 0)
    whole = table if rules == "fsdp" else 0
    print(plan.compiled.traffic)
    assert plan.topology.chips == 2 * DEVICES
    assert sum(plan.compiled.traffic.network.values()) == pytest.approx(4 * (shared / DEVICES + whole), rel=0.2)
    assert figures(plan)["network_bytes"]["all-reduce"] > 0 and plan.bound.seconds > 0


@pytest.mark.slow(seconds=150)
def test_exchanges_that_go_round_beside_products_are_what_they_are_together():
    width, hidden, devices = 256, 512, 32
    run = small_run(batch=4096, mesh=FSDP, width=width, hidden=hidden, heads=2, kv_heads=2)
    stage = run.stage("lm")
    moved = plan_stage(run, stage, topology_for(stage, "v5e:4x8"), silent).compiled.traffic.links
    layers, table = LAYERS * (4 * width**2 + 3 * width * hidden), VOCABULARY * width
    gathered_bytes, scattered = fsdp_exchanges(layers, table, devices)
    print(moved, gathered_bytes, scattered)
    assert moved["all-gather"] == pytest.approx(gathered_bytes, rel=0.2)
    assert moved["reduce-scatter"] == pytest.approx(scattered, rel=0.2)
    assert moved["collective-permute"] == 0


@pytest.mark.parametrize("rules", ["ddp", "fsdp"])
def test_model_and_compiler_agree_on_memory(rules):
    check_memory(planned(rules))


@pytest.mark.slow(seconds=150)
@pytest.mark.parametrize(
    "changes",
    [{}, {"rules": "fsdp"}, {"remat": True}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "remat": True, "layers": 8}],
)
def test_model_and_compiler_agree_on_gigabytes(changes):
    check_memory(planned(batch=LARGE, **changes))


def check_memory(plan):
    """The two figures, and that they are near each other."""
    print(settings_of(plan.program), plan.memory.peak / 2**20, plan.compiled.peak / 2**20, "MiB")
    assert plan.compiled.fits
    assert plan.memory.peak == pytest.approx(plan.compiled.peak, rel=0.15)


def test_figures_of_a_plan():
    told = figures(planned("ddp"))
    wanted = "fits parameters bytes_per_device flops_per_step collective_bytes step_seconds_bound mfu_bound"
    for key in (*wanted.split(), "tokens_per_second", "audio_hours_per_second"):
        assert told[key] is not None
    assert told["fits"] is True
    assert told["parameters"] == LAYERS * PER_LAYER + TABLES + (2 * LAYERS + 1) * WIDTH
    assert told["bytes_per_device"]["parameters"] == 4 * told["parameters"]
    assert told["bytes_per_device"]["optimizer"] == pytest.approx(8 * told["parameters"], rel=1e-3)
    assert 0 < told["mfu_bound"] <= 1
    assert told["step_seconds_bound"] == max(told["seconds"].values())
    assert told["tokens_per_second"] == pytest.approx(BATCH * LENGTH / told["step_seconds_bound"])
    # a unit is at least a frame of 20 ms
    assert told["audio_hours_per_second"] == pytest.approx(told["tokens_per_second"] * 0.02 / 3600)


def test_fsdp_takes_its_share_of_the_state():
    ddp, fsdp = planned("ddp").memory, planned("fsdp").memory
    assert fsdp.parameters < 0.3 * ddp.parameters
    assert fsdp.optimizer < 0.3 * ddp.optimizer


@pytest.mark.slow(seconds=40)
def test_what_does_not_fit_is_made_to_fit():
    run = small_run(batch=64)
    stage = run.stage("lm")
    whole = topology_for(stage, "v5e:2x2")
    small = dataclasses.replace(whole, chip=dataclasses.replace(whole.chip, usable_bytes=24 * 2**20))
    assert trace(run, stage, small).memory.peak > 24 * 2**20
    check_fit(fit(run, stage, small, silent))
    assert advice(run, stage, small)


@pytest.mark.slow(seconds=150)
def test_what_does_not_fit_the_real_chip_is_made_to_fit():
    run = small_run(batch=4 * LARGE)
    stage = run.stage("lm")
    topology = topology_for(stage, "v5e:2x2")
    refused = plan_stage(run, stage, topology, silent)
    assert not refused.compiled.fits and refused.compiled.peak > topology.chip.device_memory
    told = figures(refused)
    assert told["step_seconds_bound"] is None and told["largest_buffers"][0]["bytes"] > 2**30
    check_fit(fit(run, stage, topology, silent))


def check_fit(found):
    """Settings were found, with few compilations, and the last prediction was right."""
    print(found.tries)
    assert found.plan.compiled.fits and found.tries[-1].fits
    assert found.flags and 1 <= len(found.tries) <= 3
    assert found.tries[-1].predicted == pytest.approx(found.tries[-1].peak, rel=0.15)


def test_a_batch_that_does_not_divide_names_one_that_does():
    run = small_run(batch=6)
    stage = run.stage("lm")
    with pytest.raises(UserError, match=r"lm\.batches\.batch is 6: must divide .* take 8"):
        plan_stage(run, stage, topology_for(stage, "v5e:2x2"), silent)


def test_stages_without_gradients_have_no_plan():
    with pytest.raises(UserError, match="'units': it trains nothing by gradient; lm do"):
        gradient_stages(small_run(), "units")


def test_a_run_shows_its_heaviest_stage():
    told = figures(planned("ddp"))
    other = {**told, "stage": "small", "flops_per_step": 1, "fits": False}
    both = gathered(small_run(), [other, told])
    assert both["stage"] == "lm" and both["fits"] is False
    assert [plan["stage"] for plan in both["stages"]] == ["small", "lm"]
