"""Compiled programs read from their text: sizes, loops, groups, exchanges."""

import pytest

from slm_jax.workbench.hlo_text import Array, arrays_of, first_group, parse_instruction, parse_module
from slm_jax.workbench.hlo_traffic import traffic_of

PROGRAM = """HloModule jit_step, is_scheduled=true, num_partitions=4

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%start (p: bf16[2,8]) -> bf16[8,8] {
  %p = bf16[2,8]{1,0} parameter(0)
  ROOT %gather.1 = bf16[8,8]{1,0} all-gather(%p), channel_id=2, replica_groups=[1,4]<=[4], chain_id="7"
}

%beside (p: bf16[2,8], q: bf16[8,8]) -> bf16[8,8] {
  %p = bf16[2,8]{1,0} parameter(0)
  %q = bf16[8,8]{1,0} parameter(1)
  %gather.2 = bf16[8,8]{1,0} all-gather(%p), channel_id=2, replica_groups=[1,4]<=[4], chain_id="7"
  ROOT %product = bf16[8,8]{1,0} convolution(%q, %gather.2)
}

%all-reduce-scatter.1 (g: f32[8,8]) -> f32[2,8] {
  %g = f32[8,8]{1,0} parameter(0)
  %all-reduce.9 = f32[8,8]{1,0} all-reduce(%g), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %zero = u32[] constant(0)
  ROOT %mine = f32[2,8]{1,0} dynamic-slice(%all-reduce.9, %zero, %zero), dynamic_slice_sizes={2,8}
}

%take (stack: f32[6,8,8], i: s32[]) -> f32[1,8,8] {
  %stack = f32[6,8,8]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %slice.1 = f32[1,8,8]{2,1,0} dynamic-slice(%stack, %i, %i, %i), dynamic_slice_sizes={1,8,8}
}

%put (stack: f32[6,8,8], row: f32[1,8,8], i: s32[]) -> f32[6,8,8] {
  %stack = f32[6,8,8]{2,1,0} parameter(0)
  %row = f32[1,8,8]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %updated = f32[6,8,8]{2,1,0} dynamic-update-slice(%stack, %row, %i, %i, %i)
}

%body (state: (s32[], f32[6,8,8], bf16[2,8])) -> (s32[], f32[6,8,8], bf16[2,8]) {
  %state = (s32[], f32[6,8,8]{2,1,0}, bf16[2,8]{1,0}) parameter(0)
  %i = s32[]{:S(6)} get-tuple-element(%state), index=0
  %stack = f32[6,8,8]{2,1,0} get-tuple-element(%state), index=1
  %part = bf16[2,8]{1,0} get-tuple-element(%state), index=2
  %row = f32[1,8,8]{2,1,0:S(1)} fusion(%stack, %i), kind=kLoop, calls=%take
  %begun = bf16[8,8]{1,0:S(1)} fusion(%part), kind=kCustom, calls=%start
  %done = bf16[8,8]{1,0:S(1)} fusion(%part, %begun), kind=kCustom, calls=%beside
  %new = f32[6,8,8]{2,1,0} fusion(%stack, %row, %i), kind=kLoop, calls=%put
  %grad = f32[8,8]{1,0:S(1)} bitcast(%row)
  %scattered = f32[2,8]{1,0:S(1)} fusion(%grad), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %next = (s32[], f32[6,8,8]{2,1,0}, bf16[2,8]{1,0}) tuple(%i, %new, %part)
}

%condition (state.2: (s32[], f32[6,8,8], bf16[2,8])) -> pred[] {
  %state.2 = (s32[], f32[6,8,8]{2,1,0}, bf16[2,8]{1,0}) parameter(0)
  %six = s32[]{:T(128)} constant(6)
  %i.2 = s32[] get-tuple-element(%state.2), index=0
  ROOT %go = pred[] compare(%i.2, %six), direction=LT
}

ENTRY %main (a: s32[], b: f32[6,8,8], c: bf16[2,8]) -> f32[8] {
  %a = s32[] parameter(0)
  %b = f32[6,8,8]{2,1,0} parameter(1)
  %c = bf16[2,8]{1,0} parameter(2)
  %begin = (s32[], f32[6,8,8]{2,1,0}, bf16[2,8]{1,0}) tuple(%a, %b, %c)
  %loop = (s32[], f32[6,8,8]{2,1,0}, bf16[2,8]{1,0}) while(%begin), condition=%condition, body=%body
  %bias = f32[8]{0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %reduced = f32[8]{0} all-reduce(%bias), channel_id=5, replica_groups={{0,1},{2,3}}, to_apply=%add
}
"""


def test_a_loop_counts_as_often_as_it_turns():
    module = parse_module(PROGRAM)
    assert module.partitions == 4
    assert [(c.name, times) for c, times, _ in module.executed()] == [("main", 1), ("body", 6)]
    assert module.open_loops() == 0


@pytest.mark.parametrize(("step", "turns"), [(1, 6), (2, 3), (4, 2)])
def test_a_loop_whose_turns_are_written_out_turns_less_often(step, turns):
    counted = PROGRAM.replace(
        "ROOT %next = (s32[], f32[6,8,8]{2,1,0}, bf16[2,8]{1,0}) tuple(%i,",
        f"%by = s32[] constant({step})\n  %up = s32[] add(%i, %by)\n"
        "  ROOT %next = (s32[], f32[6,8,8]{2,1,0}, bf16[2,8]{1,0}) tuple(%up,",
    )
    module = parse_module(counted)
    assert [times for _, times, _ in module.executed()] == [1, turns]


def test_exchanges_by_kind():
    moved = traffic_of(parse_module(PROGRAM))
    gathered = 3 * 2 * 8 * 2  # three parts of a row from the others; start and end of one chain are one exchange
    scattered = 3 * 8 * 8 * 4 // 4
    reduced = 2 * 8 * 4 // 2
    assert moved.links == {
        "all-gather": 6 * gathered,
        "reduce-scatter": 6 * scattered,
        "all-reduce": reduced,
        "all-to-all": 0,
        "collective-permute": 0,
    }
    assert not any(moved.network.values())


def test_exchanges_between_slices_go_through_the_hosts():
    received = (
        "  %got = (f32[4,8]{1,0}, u32[], token[]) recv(%t), channel_id=9, is_host_transfer=true, "
        '_xla_megascale_transfer_type="ALL_REDUCE"\n  %bias ='
    )
    module = parse_module(PROGRAM.replace("  %bias =", received))
    assert traffic_of(module, slices=2).network["all-reduce"] == 4 * 8 * 4  # half is summed here, half comes back
    assert traffic_of(module, slices=4).network["all-reduce"] == 4 * 8 * 4 * 3 // 2
    assert traffic_of(module, slices=2).links == traffic_of(parse_module(PROGRAM)).links


def test_of_a_stack_only_the_slice_moves():
    slice_bytes, part = 8 * 8 * 4, 2 * 8 * 2
    each_turn = slice_bytes + part + part + slice_bytes  # read a row, read the part twice, write a row
    assert traffic_of(parse_module(PROGRAM)).memory == 6 * each_turn + 2 * 8 * 4


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}", [0, 2]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", [0, 4]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", list(range(8))),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}", [0, 1, 2, 3]),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(1)2}", [0, 4]),
        ("replica_groups={}", list(range(8))),
    ],
)
def test_groups(text, group):
    assert first_group(text, 8) == group


def test_types():
    found = arrays_of("(f32[4,8]{1,0:T(4,128)S(1)}, bf16[], /*index=2*/pred[3]{0}, s4[6]{0}, f8e4m3fn[2]{0})")
    assert found[0] == Array("f32", (4, 8), 1)
    assert [array.bytes for array in found] == [128, 2, 3, 3, 2]


def test_an_instruction():
    line = '  ROOT %y.1 = (f32[2]{0:T(128)}, s32[]) fusion(%a.b, %c), kind=kLoop, calls=%f, op_name="jit(g)/sin"'
    found = parse_instruction(line)
    assert (found.name, found.opcode, found.operands, found.is_root) == ("y.1", "fusion", ("a.b", "c"), True)
    assert found.called("calls") == ["f"] and found.label == "jit(g)/sin"
    assert parse_instruction("  // a comment") is None
