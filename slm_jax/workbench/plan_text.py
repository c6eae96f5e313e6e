"""Plans for people."""

from typing import Any

GIB = 2**30


def plan_lines(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """What a plan says, as (name, text)."""
    sizes = plan["bytes_per_device"]
    room = f"{size_text(sizes['peak'])} of {size_text(sizes['limit'])}"
    lines = [
        ("stage", f"{plan['stage']} on {slices_text(plan)}"),
        ("settings", settings_text(plan["settings"])),
        ("fits", f"{'yes' if plan['fits'] else 'NO'}, {room} (the model said {size_text(plan['predicted_peak'])})"),
        ("parameters", f"{plan['parameters']:,}"),
        ("on a device", ", ".join(f"{name} {size_text(sizes[name])}" for name in PARTS if sizes[name])),
        ("a step", f"{si(plan['flops_per_step'])}FLOP, {si(plan['model_flops_per_step'])}FLOP without recomputation"),
    ]
    lines += speed_lines(plan) if plan["seconds"] else []
    if not plan["fits"]:
        lines += [("largest", f"{size_text(one['bytes'])} {one['what']}") for one in plan["largest_buffers"]]
        lines.append(("would fit", " ".join(plan["advice"]) if plan.get("advice") else "no setting that was tried"))
    for one in plan.get("tries", []):
        verdict = "fits" if one["fits"] else "does not fit"
        told = f"predicted {size_text(one['predicted'])}, compiled {size_text(one['peak'])}, {verdict}"
        lines.append(("tried", f"{' '.join(one['flags']) or 'as it is'}: {told}"))
    return lines


PARTS = ("parameters", "optimizer", "ema", "temporaries")


def speed_lines(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """The roofline."""
    seconds = plan["seconds"]
    exchanged = {name: size for name, size in plan["collective_bytes"].items() if size}
    parts = ", ".join(f"{name} {time_text(value)}" for name, value in seconds.items() if value)
    return [
        ("moves", f"{si(plan['memory_bytes_moved'])}B of memory on each device"),
        ("exchanges", ", ".join(f"{name} {si(size)}B" for name, size in exchanged.items()) or "nothing"),
        ("at best", f"{time_text(plan['step_seconds_bound'])} a step, by {plan['bound_by']} ({parts})"),
        ("MFU", f"at most {100 * plan['mfu_bound']:.1f} %"),
        ("speed", f"{si(plan['tokens_per_second'])}tokens/s, {plan['audio_hours_per_second']:.2f} hours of speech/s"),
    ]


def slices_text(plan: dict[str, Any]) -> str:
    """`v5e:16x16 (256 devices)`."""
    several = f"{plan['slices']} x " if plan["slices"] > 1 else ""
    return f"{several}{plan['topology']} ({plan['devices']} devices)"


def settings_text(settings: dict[str, Any]) -> str:
    """The settings of a plan on one line."""
    mesh = " x ".join(f"{name} {size}" for name, size in settings["mesh"].items()) or "one device"
    again = {True: ", remat", False: "", None: ""}[settings["remat"]]
    rows = f"batch {settings['batch']} in {settings['accumulate']}, {settings['rows_per_device']} rows a device"
    return f"{rows}, {settings['rules']} on {mesh}{again}"


def si(value: float | int) -> str:
    """`1.23 T`; three digits and a prefix."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "


def size_text(size: int) -> str:
    """`1.23 GiB`, `4.56 MiB`."""
    unit = "GiB" if size >= GIB / 10 else "MiB"
    return f"{size / (GIB if unit == 'GiB' else 2**20):.2f} {unit}"


def time_text(seconds: float) -> str:
    """`12.3 ms`, `45.6 us`."""
    return f"{1000 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"
