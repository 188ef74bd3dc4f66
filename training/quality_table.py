"""What accelerations cost: judges the recordings of ``indextts bench --quality N --clips DIR`` and prints one table.

    python -m training.quality_table DIR --workers 2

Beside what the benchmark has measured itself (``DIR/bench.json``), each configuration gets the word error rate, the
similarity to its voices and the predicted MOS, by the judges of ``training/evaluate.py``. The table also goes to
``DIR/quality.md``, and all figures to ``DIR/quality.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indextts.bench.quality import PROMPTS
from indextts.cli.bench import FIGURES
from training import report
from training.evaluate import judge, read_clips
from training.report import Verdict

JUDGED = ("WER %", "CAM++ own − others", "GE2E own − others", "MOS")
"""Of ``training.report.COLUMNS``."""

NOTHING = "–"

EXPLANATION = """
Logit error, most likely code, mel distance and log-spectral distance (LSD): on the codes and the noise of the first
configuration; beside that one stands how far apart its own sounds of different noise are. All else is of what each
spoke by its own draws. WER: Whisper base after normalisation. Own − others: mean cosine to the own prompt, to the other
prompts, and the share of recordings nearest to their own. MOS: predicted by DistillMOS.
"""


def measured_columns(quality: dict[str, Any]) -> dict[str, str]:
    """What the benchmark says of one configuration."""
    difference = quality["difference"]
    sound = difference["sound"] if difference else quality["other_noise"]
    return {
        "logit error": f"{difference['logit_error']:.2g}" if difference else NOTHING,
        "same best code %": f"{100 * difference['same_best_code']:.2f}" if difference else NOTHING,
        "mel distance": f"{sound['mel']:.2g}" + ("" if difference else " (other noise)"),
        "LSD dB": f"{sound['spectrum_db']:.2g}" + ("" if difference else " (other noise)"),
    }


def judged_columns(summary: dict[str, Any]) -> dict[str, str]:
    """What the judges say of it."""
    shown = dict(report.COLUMNS)
    return {name: shown[name](summary) for name in JUDGED}


def judge_all(options: argparse.Namespace, names: Sequence[str]) -> dict[str, list[Verdict]]:
    """The verdicts on each configuration, from one jury."""
    folder: Path = options.folder
    clips = {name: read_clips(folder / name) for name in names}
    moved = [dataclasses.replace(clip, file=f"{name}/{clip.file}") for name, own in clips.items() for clip in own]
    options = argparse.Namespace(
        audio=folder, prompts=folder / PROMPTS, judges=options.judges, workers=options.workers
    )
    verdicts = iter(judge(options, moved))
    return {name: [next(verdicts) for _ in own] for name, own in clips.items()}


def markdown(bench: dict[str, Any], summaries: dict[str, dict[str, Any]]) -> str:
    """The table, and what it was measured on."""
    quality, machine = bench["plan"]["quality"], bench["machine"]
    measured = {config["name"]: config["quality"] for config in bench["configs"] if config["quality"]}
    rows = {name: {**measured_columns(measured[name]), **judged_columns(summaries[name])} for name in summaries}
    heads = list(next(iter(rows.values())))
    lines = [
        f"{bench['model']}, {machine['device']}, torch {machine['torch']}: {len(quality['sentences'])} sentences in "
        f"{len(quality['voices'])} voices.",
        "",
        f"| configuration | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
        *(f"| {name} | {' | '.join(row.values())} |" for name, row in rows.items()),
    ]
    return "\n".join(lines) + "\n" + EXPLANATION


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that was given to --clips")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--judges", type=Path, default=None, help="folder with weights of the judges")
    return parser.parse_args()


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    options = parse()
    file: Path = options.folder / FIGURES
    if not file.is_file():
        raise SystemExit(f"there is no {file}: it is made by indextts bench --quality N --clips {options.folder}")
    bench = json.loads(file.read_text(encoding="utf-8"))
    names = [config["name"] for config in bench["configs"] if config["quality"]]
    if not names:
        raise SystemExit(f"{file} tells of no configuration that spoke")
    summaries = {name: report.summarise(verdicts) for name, verdicts in judge_all(options, names).items()}
    text = json.dumps({"bench": bench, "judged": summaries}, indent=1, ensure_ascii=False)
    (options.folder / "quality.json").write_text(text + "\n", encoding="utf-8")
    table = markdown(bench, summaries)
    (options.folder / "quality.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
