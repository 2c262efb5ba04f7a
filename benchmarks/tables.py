"""The rows of a run as a Markdown table, for the book."""

from __future__ import annotations

from typing import Any


def digits(milliseconds: float) -> str:
    """Three digits, or all before the point."""
    return f"{milliseconds:.0f}" if milliseconds >= 1000 else f"{milliseconds:.3g}"


def markdown(result: dict[str, Any]) -> str:
    """What was compared, both times, and how many times faster ours is."""
    hardware, versions = result["hardware"], result["versions"]
    processor = f"{hardware['processor']}, {hardware['threads']} threads"
    if "instructions" in hardware:  # older records do not say
        processor += f", {hardware['instructions']}"
    device = hardware["gpu"] or processor
    lines = [
        f"`{result['command']}` on {device}; torch {versions['torch']}, torchvision "
        f"{versions['torchvision']}, commit {result['commit']}.",
        "",
        "| what | settings | ours, ms | torchvision, ms | ratio | its quartiles | memory |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        shown = {n: v for n, v in row["settings"].items() if n != "logits_bytes"}
        settings = ", ".join(f"{name} {value}" for name, value in shown.items())
        low, high = row["ratio_quartiles"]
        memory = ""
        if "ours_bytes" in row:
            memory = f"× {row['ours_bytes'] / row['theirs_bytes']:.2f}"
        lines.append(
            f"| {row['group']} | {settings} | {digits(row['ours_ms'])} | "
            f"{digits(row['theirs_ms'])} | "
            f"{row['ratio']:.2f} | {low:.2f}–{high:.2f} | {memory} |"
        )
    if "ceiling" in result:
        lines += ["", floor(result["ceiling"])]
    return "\n".join(lines) + "\n"


def floor(ceiling: dict[str, Any]) -> str:
    """What the arithmetic of a picture takes at least, in words."""
    each = "; ".join(
        f"{name}: {ceiling['gflop'][name]} · 10⁹ operations, so at least {least} ms"
        for name, least in ceiling["least_ms"].items()
    )
    return (
        f"The 3×3 convolution of a subnet, alone, on P3 of {ceiling['size']} pixels: "
        f"{ceiling['gflops_per_second']} · 10⁹ operations a second. All of the network at that "
        f"speed: {each}."
    )
