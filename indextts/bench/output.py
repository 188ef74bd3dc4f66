"""The figures as tables, as JSON and as a picture."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from indextts.bench.flow import FRAMES
from indextts.bench.measure import STAGES, BeamFigures, BenchReport, ConfigFigures, Repeated, TextFigures
from indextts.bench.quality import Difference, QualityFigures, SoundDistance
from indextts.errors import UnsupportedOption

STAGE_NAMES = {"speech": "text to codes", "s2mel": "codes to mel", "vocoder": "mel to sound"}
NOTHING = "-"

Row = tuple[str, list[str]]


def as_text(report: BenchReport) -> str:
    """Tables side by side for people, one for each number of beams, and what they were measured on."""
    plan, measured = report.plan, [config for config in report.configs if config.error is None]
    lines = [f"model: {describe_model(report)}; voice: {plan.voice.name}, cached"]
    lines += [f"{name}: {value}" for name, value in report.machine.items()]
    if plan.beams:
        lines.append(
            f"medians of {plan.repetitions} runs, of {plan.long_repetitions} of the long text (least to most), "
            f"after {plan.warm_ups} and {plan.long_warm_ups} to warm up"
        )
    if measured:
        names = [f"{config.name}{'' if honoured(config) else ' *'}" for config in measured]
        lines += ["", *table("first load", names, load_rows(measured))]
        for index, beams in enumerate(plan.beams):
            figures = [config.beams[index] for config in measured]
            lines += ["", *table(beams_title(beams), names, beam_rows(figures))]
        if plan.beams:
            lines += ["", *table(f"flow, {FRAMES:,} frames", names, flow_rows(measured))]
        if plan.quality is not None:
            title = f"quality, {len(plan.quality.sentences)} sentences in {len(plan.quality.voices)} voices"
            lines += ["", *table(title, names, quality_rows([c.quality for c in measured if c.quality is not None]))]
        lines += ["", f"peak memory: {report.memory_kind}"]
        if not all(map(honoured, measured)):
            lines.append("*: not all that was asked for runs, see below")
    lines += ["", "what runs:", *(f"  {line}" for config in report.configs for line in acceleration_lines(config))]
    return "\n".join(lines)


def describe_model(report: BenchReport) -> str:
    """The model in words."""
    plan = report.plan
    if plan.random_weights is None:
        return report.model
    return f"random weights, size {plan.random_weights}, {plan.codes_per_character} codes a character"


def acceleration_lines(config: ConfigFigures) -> list[str]:
    """What the engine says of each option, and loudly where it is not what was asked."""
    if config.error is not None:
        return [f"{config.name}: FAILED, {config.error}"]
    return [f"{config.name}: {'' if entry.honoured else 'NOT HONOURED, '}{entry}" for entry in config.acceleration]


def beams_title(beams: int) -> str:
    """``1 beam``, ``3 beams``."""
    return f"{beams} beam{'s' if beams > 1 else ''}"


def honoured(config: ConfigFigures) -> bool:
    """Whether all runs that was asked for."""
    return all(entry.honoured for entry in config.acceleration)


def load_rows(configs: Sequence[ConfigFigures]) -> list[Row]:
    """Everything up to the first result."""
    rows = [
        ("load", [seconds(config.load_s) for config in configs]),
        ("first run after it", [seconds(config.first_run_s) for config in configs]),
        ("  of this, the voice", [seconds(config.voice_s) for config in configs]),
        ("peak memory, loading", [gigabytes(config.load_memory_bytes) for config in configs]),
    ]
    return [row for row in rows if set(row[1]) != {NOTHING}]


def beam_rows(figures: Sequence[BeamFigures]) -> list[Row]:
    """Everything about one number of beams."""
    rows = text_rows([figure.short for figure in figures])
    rows.append(("  first sound", [repeated(figure.first_sound_s) for figure in figures]))
    rows.append(("  first sound, in chunks", [repeated(figure.first_chunk_s) for figure in figures]))
    for stage in STAGES:
        rows.append((f"  {STAGE_NAMES[stage]}", [repeated(figure.stages_s[stage]) for figure in figures]))
    rows.append(("  text to codes, a code", [f"{figure.code_ms:.2f} ms" for figure in figures]))
    long = [figure.long for figure in figures if figure.long is not None]
    if long:
        rows += text_rows(long)
    return rows


def text_rows(figures: Sequence[TextFigures]) -> list[Row]:
    """Everything about one text."""
    first = figures[0]
    return [
        (f"{first.characters} characters", [f"{figure.audio_s:.1f} s of sound" for figure in figures]),
        ("  time", [repeated(figure.total_s) for figure in figures]),
        ("  real-time factor", [f"{figure.real_time_factor:.3f}" for figure in figures]),
        ("  characters/s", [f"{figure.characters_per_s:.1f}" for figure in figures]),
        ("  times the first", [f"{figure.characters_per_s / first.characters_per_s:.2f}" for figure in figures]),
        ("  peak memory", [gigabytes(figure.peak_memory_bytes) for figure in figures]),
    ]


def flow_rows(configs: Sequence[ConfigFigures]) -> list[Row]:
    """One request of a fixed size."""
    return [
        ("  steps", [str(config.flow_steps) for config in configs]),
        ("  time", [NOTHING if config.flow_s is None else repeated(config.flow_s) for config in configs]),
    ]


def quality_rows(figures: Sequence[QualityFigures]) -> list[Row]:
    """What a configuration makes of the sound; of the first one, how far other noise takes it."""

    def compared(show: Callable[[Difference], str]) -> list[str]:
        return [NOTHING if figure.difference is None else show(figure.difference) for figure in figures]

    def apart(show: Callable[[SoundDistance], str]) -> list[str]:
        return [
            show(figure.difference.sound) if figure.difference
            else f"{show(figure.other_noise)} (other noise)" if figure.other_noise else NOTHING
            for figure in figures
        ]  # fmt: skip

    return [
        ("on the first's codes", ["" for _ in figures]),
        ("  logit error", compared(lambda difference: f"{difference.logit_error:.2g}")),
        ("  same best code", compared(lambda difference: percent(difference.same_best_code))),
        ("  mel distance", apart(lambda sound: f"{sound.mel:.2g}")),
        ("  log-spectral distance", apart(lambda sound: f"{sound.spectrum_db:.2g} dB")),
        ("on its own codes", [f"{figure.audio_s:.1f} s of sound" for figure in figures]),
        ("  the same as the first's", compared(lambda difference: percent(difference.same_speech))),
        ("  cut off", [str(figure.cut_off) for figure in figures]),
    ]


def percent(share: float) -> str:
    """``99.3 %``."""
    return f"{100 * share:.1f} %"


def table(title: str, names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Lines of columns that are as wide as they need be."""
    cells = [[title, *names], *([label, *values] for label, values in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    lines = ["  ".join(row).rstrip() for row in padded]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def seconds(value: float | None) -> str:
    """Three digits, in milliseconds below one second."""
    if value is None:
        return NOTHING
    return f"{1000 * value:.3g} ms" if value < 0.9995 else f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def repeated(value: Repeated) -> str:
    """The median, and the extremes if there are any."""
    if len(value.values) == 1:
        return seconds(value.median)
    return f"{seconds(value.median)} ({' to '.join(map(seconds, value.spread))})"


def gigabytes(value: int | None) -> str:
    """10^9 bytes."""
    return NOTHING if value is None else f"{value / 1e9:.2f} GB"


def as_json(report: BenchReport) -> str:
    """All figures with all repetitions, and what the tables derive from them."""
    return json.dumps(plain(report), indent=2, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """Dataclasses as mappings, their derived quantities included; recordings by name and content hash."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value.decode("latin-1") if isinstance(value, bytes) else str(value) if isinstance(value, Path) else value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if "data" in fields:
        return {"name": fields["name"], "sha256": getattr(value, "key", None)}
    derived = {name: getattr(value, name) for name, kind in vars(type(value)).items() if isinstance(kind, property)}
    return {name: plain(item) for name, item in {**fields, **derived}.items()}


def load_plotting() -> Any:
    """The ``Figure`` class of matplotlib, which only pictures need.

    Raises:
        UnsupportedOption: it is not installed.
    """
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise UnsupportedOption("--plot needs matplotlib, which is not installed: pip install matplotlib") from error


def plot(report: BenchReport, path: Path) -> None:
    """Bars for every configuration, by number of beams: speed, real-time factor, first sound and memory; as PNG."""
    measured = [config for config in report.configs if config.error is None]
    panels: list[tuple[str, Callable[[BeamFigures], float | None]]] = [
        ("characters per second", lambda figure: (figure.long or figure.short).characters_per_s),
        ("real-time factor", lambda figure: (figure.long or figure.short).real_time_factor),
        ("first sound, ms", lambda figure: 1000 * figure.first_sound_s.median),
        ("peak memory, GB", lambda figure: ((figure.long or figure.short).peak_memory_bytes or 0) / 1e9),
    ]
    figure = load_plotting()(figsize=(12, 2 + len(panels) * (0.6 + 0.3 * len(measured))), layout="constrained")
    figure.suptitle(f"{describe_model(report)}\n{report.machine['device']}, torch {report.machine['torch']}")
    height = 0.8 / len(report.plan.beams)
    for axes, (title, value) in zip(figure.subplots(len(panels), 1), panels, strict=True):
        for index, beams in enumerate(report.plan.beams):
            places = [place + index * height for place in range(len(measured))]
            values = [value(config.beams[index]) for config in measured]
            bars = axes.barh(places, values, height * 0.9, label=beams_title(beams))
            axes.bar_label(bars, fmt="%.3g", padding=3)
        labels = [c.name + ("" if honoured(c) else " (not honoured)") for c in measured]
        axes.set_yticks([place + 0.4 - height / 2 for place in range(len(measured))], labels)
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.set_title(title, loc="left", fontsize="medium")
    figure.axes[0].legend()
    figure.savefig(path, format="png", dpi=120)
