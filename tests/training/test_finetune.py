"""Fine-tuning on a folder of recordings: from files to a model folder that speaks, and what stops it on the way."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from indextts.checkpoints import locate, read_tensors, section
from indextts.config import EngineConfig, SamplingParams
from indextts.engine import Engine
from indextts.errors import CheckpointError, ConfigError
from indextts.loading import load_models
from indextts.manifest import compare
from indextts.models.gpt import UnifiedVoice
from indextts.random_checkpoint import write_random_checkpoint
from indextts.resources import EXAMPLES_DIR
from indextts.types import SynthesisRequest, VoicePrompt
from training import finetune, loop, model_copy
from training.dataset import SpeechData
from training.export import compact
from training.finetune import open_split
from training.lora import PROJECTIONS, Adapter, LowRank, parse_layers
from training.model_copy import COPIED_BYTES, write_model
from training.recordings import UnusableRecordings, find_recordings
from training.train_gpt import logits_of

TEXTS = [
    "The rain is falling.", "We went home early.", "Nobody saw him there.", "Bring me the book.", "What is your name?",
    "She sings every day.", "They are not here.", "Open the window.", "He likes green tea.", "The train has left.",
    "It was a cold night.", "I do not know.",
]  # fmt: skip
STEPS = 12
FAST = ("--steps", str(STEPS), "--evaluate-every", "6", "--batch-tokens", "400", "--device", "cpu", "--lr", "5e-3")
FEW_CODES = SamplingParams(max_mel_tokens=30)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve stretches of a recording under twelve texts, as WAV and FLAC."""
    folder = tmp_path_factory.mktemp("speaker")
    samples, rate = soundfile.read(EXAMPLES_DIR / "voice_01.wav", dtype="float32")
    length = int(0.9 * rate)
    for number, text in enumerate(TEXTS):
        start = number * (len(samples) - length) // len(TEXTS)
        path = folder / f"line_{number:02d}.{('wav', 'flac')[number % 2]}"
        soundfile.write(path, samples[start : start + length], rate)
        path.with_suffix(".txt").write_text(f"{text}\n", encoding="utf-8")
    return folder


def run(*arguments: str | Path) -> None:
    """The program with these arguments; an error ends it with ``SystemExit``."""
    before = sys.argv
    sys.argv = ["finetune", *map(str, arguments)]
    try:
        finetune.main()
    finally:
        sys.argv = before
        log = logging.getLogger("training.finetune")
        while log.handlers:
            log.handlers.pop().close()


@pytest.fixture(scope="module")
def tuned(speaker: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in its official layout, fine-tuned by LoRA."""
    out = tmp_path_factory.mktemp("tuned") / "model"
    run("--recordings", speaker, "--model-dir", tiny_model_dir, "--out", out, *FAST)
    return out


def gpt_of(folder: Path) -> UnifiedVoice:
    return load_models(*locate(folder), torch.device("cpu")).gpt


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return section(read_tensors(locate(folder)[1].gpt), "model")


def heldout_loss(model: UnifiedVoice, work: Path) -> float:
    folders = finetune.argparse.Namespace(data=work, out=work, tokens="")
    config, _ = locate(work.parent)
    batches = open_split("heldout", folders, config, torch.device("cpu"), seed=3)
    return finetune.HeldOut.draw(batches, 8).score(model, worth=False)["decode_ce"]


def test_what_was_not_learnt_from_becomes_likelier(tuned: Path, tiny_model_dir: Path) -> None:
    work = tuned / finetune.WORK
    before, after = heldout_loss(gpt_of(tiny_model_dir), work), heldout_loss(gpt_of(tuned), work)
    assert after < before - 0.2
    log = (work / "finetune.log").read_text()
    assert "held-out cross-entropy of a code" in log and "2 held out" not in log.splitlines()[-1]


def test_nobody_learns_from_what_is_held_out(tuned: Path) -> None:
    work = tuned / finetune.WORK
    train, heldout = (SpeechData(work, "cpu", split) for split in ("train", "heldout"))
    assert (len(train), len(heldout)) == (10, 2)
    assert {train.text(i) for i in range(10)} | {heldout.text(i) for i in range(2)} == set(TEXTS)


def test_the_folder_is_a_model_that_speaks(tuned: Path, recordings: tuple[Path, Path]) -> None:
    engine = Engine.load(EngineConfig(model_dir=tuned, device="cpu", qwen_emotion=False))
    voice = VoicePrompt.from_path(recordings[0])
    result = engine.synthesize(SynthesisRequest("The rain.", voice, sampling=FEW_CODES, seed=1))
    assert len(result.samples) and np.abs(result.samples).max() > 0
    assert {state.state for state in compare(tuned, locate(tuned)[1].paths())} == {"ok"}


def test_everything_else_stays_as_it_was(tuned: Path, tiny_model_dir: Path) -> None:
    theirs, ours = (torch.load(folder / "gpt.pth", weights_only=True) for folder in (tiny_model_dir, tuned))
    assert set(ours) == {"model"} and list(ours["model"]) == list(theirs["model"])
    changed = {key for key, value in ours["model"].items() if not torch.equal(value, theirs["model"][key])}
    assert changed == {f"gpt.h.{layer}.{name}.weight" for layer in range(3) for name in PROJECTIONS}
    for path in locate(tiny_model_dir)[1].paths():
        if path.name != "gpt.pth":
            assert (tuned / path.relative_to(tiny_model_dir)).read_bytes() == path.read_bytes()


def test_merged_weights_are_the_base_with_its_adapter(tuned: Path, tiny_model_dir: Path) -> None:
    adapted, merged = gpt_of(tiny_model_dir), gpt_of(tuned)
    plain = copy.deepcopy(adapted)
    Adapter.load(tuned / finetune.ADAPTER).attach(adapted)
    work = tuned / finetune.WORK
    folders = finetune.argparse.Namespace(data=work, out=work, tokens="")
    batches = open_split("heldout", folders, locate(tuned)[0], torch.device("cpu"), seed=0)
    batch = batches.gather(batches.choose(batches.usable))
    with torch.no_grad():
        base, expected, found = (logits_of(model, batch, batch.codes, True)[0] for model in (plain, adapted, merged))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - base).abs().max() > 0.1


def test_an_adapter_changes_another_copy_of_the_model(tuned: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Here one in safetensors with int8 rows, as the bundled model is stored."""
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(tiny_model_dir, other)
    (other / "gpt.pth").unlink()
    save_file(compact(tensors_of(tiny_model_dir)), other / "gpt.safetensors")
    config = (other / "config.yaml").read_text() + "\ngpt_checkpoint: gpt.safetensors\n"
    (other / "config.yaml").write_text(config)
    run("--apply", tuned / finetune.ADAPTER, "--model-dir", other, "--out", out)
    stored, found, base = load_file(out / "gpt.safetensors"), tensors_of(out), tensors_of(other)
    adapter = Adapter.load(tuned / finetune.ADAPTER).by_name()
    for name, value in base.items():
        part = adapter.get(name.removesuffix(".weight"))
        assert torch.equal(found[name], value if part is None else part(value).detach())
    assert stored["text_embedding.weight"].dtype == torch.int8 and "text_embedding.weight.scale" in stored
    assert stored["gpt.h.0.attn.c_attn.weight"].dtype == torch.float32
    assert "gpt.h.0.attn.c_attn.weight.scale" not in stored
    gpt_of(out)


def test_an_adapter_of_another_model_is_refused(tuned: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    weights = tensors_of(tiny_model_dir)
    adapter = Adapter.load(tuned / finetune.ADAPTER)
    name = "gpt.h.1.mlp.c_fc"
    with pytest.raises(CheckpointError, match=f"another model: {name} should be .* missing"):
        adapter.merged({key: value for key, value in weights.items() if key != f"{name}.weight"})
    with pytest.raises(CheckpointError, match="other weights"):
        adapter.merged(weights | {f"{name}.weight": weights[f"{name}.weight"] * 1.01})
    with pytest.raises(SystemExit, match=r"ERROR: .*is not an adapter"):
        run("--apply", tiny_model_dir / "gpt.pth", "--model-dir", tiny_model_dir, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    tuned: Path, speaker: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--recordings", speaker, "--model-dir", tiny_model_dir, "--out", tmp_path / "model", *FAST)
    take, taken = finetune.TrainStep.__call__, []

    def fail_at_8(*args, **kwargs):
        taken.append(1)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return take(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
        patch.setattr(finetune.TrainStep, "__call__", fail_at_8)
        with pytest.raises(KeyboardInterrupt):
            run(*command)
    assert not (tmp_path / "model" / "config.yaml").exists()
    with pytest.raises(SystemExit, match=r"not empty.*--resume"):
        run(*command)
    with pytest.raises(SystemExit, match="begun with --rank 8"):
        run(*command, "--resume", "--rank", "4")
    run(*command, "--resume")
    assert "resumed at step 7" in (tmp_path / "model" / finetune.WORK / "finetune.log").read_text()
    ours, theirs = (load_file(folder / finetune.ADAPTER) for folder in (tmp_path / "model", tuned))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_all_weights_learn_but_those_that_listen_to_emotions(
    speaker: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    run("--recordings", speaker, "--model-dir", tiny_model_dir, "--out", out, "--full", *FAST)
    before, after = tensors_of(tiny_model_dir), tensors_of(out)
    same = {key for key in before if torch.equal(before[key], after[key])}
    emotions = {key for key in before if key.startswith(("emo_", "emovec_"))}
    assert emotions and emotions <= same
    assert len(same - emotions) < 0.1 * len(before)
    assert heldout_loss(gpt_of(out), out / finetune.WORK) < heldout_loss(gpt_of(tiny_model_dir), out / finetune.WORK)
    assert not (out / finetune.ADAPTER).exists()


def test_the_best_is_kept_and_the_rest_not_waited_for(speaker: Path, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    ruinous = ("--lr", "30", "--steps", "200", "--evaluate-every", "2", "--patience", "2")
    run("--recordings", speaker, "--model-dir", tuned, "--out", out, *FAST, *ruinous)
    log = (out / finetune.WORK / "finetune.log").read_text()
    assert "no better for 2 evaluations" in log and "nothing was better" in log
    before, after = tensors_of(tuned), tensors_of(out)
    assert all(torch.equal(before[key], after[key]) for key in before)


# ------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def folder(speaker: Path, tmp_path: Path) -> Path:
    """A copy of the recordings to spoil."""
    return shutil.copytree(speaker, tmp_path / "folder")


def tone(path: Path, duration_s: float, level: float = 0.3) -> None:
    soundfile.write(path, level * np.sin(np.arange(int(duration_s * 16000)) * 0.1), 16000)


def spoil(folder: Path) -> dict[str, str]:
    """Every kind of bad file; what should be said of each."""
    (folder / "line_00.txt").unlink()
    (folder / "line_01.txt").write_text(" \n")
    (folder / "line_02.txt").write_text("... !")
    (folder / "line_03.txt").write_bytes(b"caf\xe9")
    (folder / "line_04.txt").write_text("word and " * 60)
    tone(folder / "line_05.flac", 0.2)
    tone(folder / "line_06.wav", 3.0)
    tone(folder / "line_07.flac", 1.0, level=0.0)
    (folder / "line_08.wav").write_bytes(b"not a recording")
    (folder / "line_09.flac").write_bytes(b"")
    (folder / "line_10.flac").write_bytes((folder / "line_11.flac").read_bytes())
    (folder / "nobody.txt").write_text("Who says this?")
    return {
        "line_00.wav": "has no text", "line_01.flac": "text is empty", "line_02.wav": "nothing to speak",
        "line_03.txt": "is not UTF-8", "line_04.wav": "tokens", "line_05.flac": "too short",
        "line_06.wav": "too long, 3.0 s; at most 1.2 s", "line_07.flac": "silent", "line_08.wav": "cannot decode",
        "line_09.flac": "is empty", "line_10.wav": "same name", "nobody": "no recording",
    }  # fmt: skip


def test_every_bad_recording_is_named_and_counted(
    folder: Path, tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = spoil(folder)
    command = ("--recordings", folder, "--model-dir", tiny_model_dir, "--out", tmp_path / "out", *FAST)
    counted = r"ERROR: .* 12 cannot be used, and 2 can: .*; and 7 more\. .*--skip-bad"
    with pytest.raises(SystemExit, match=counted) as stop:
        run(*command)
    assert "\n" not in str(stop.value)
    told = [record.getMessage() for record in caplog.records if record.name == "training.prepare"]
    for name, reason in expected.items():
        assert any(f"not used: {name}" in line and reason in line for line in told), (name, told)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    with pytest.raises(SystemExit, match="2 different texts are too few"):
        run(*command, "--skip-bad")


def test_bad_recordings_can_be_left_out(
    folder: Path, tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "line_03.txt").unlink()
    run(
        "--recordings",
        folder,
        "--model-dir",
        tiny_model_dir,
        "--out",
        tmp_path / "out",
        *FAST,
        "--steps",
        "1",
        "--skip-bad",
    )
    assert "not used: line_03.flac: has no text" in caplog.text
    work = tmp_path / "out" / finetune.WORK
    assert len(json.loads((work / "sentences.json").read_text())) == len(TEXTS) - 1


def test_texts_in_the_form_of_ljspeech(folder: Path) -> None:
    for path in folder.glob("*.txt"):
        path.unlink()
    (folder / "wavs").mkdir()
    (folder / "line_02.wav").rename(folder / "wavs" / "line_02.wav")
    lines = [
        "line_00|In 1865.|In eighteen sixty-five.",
        "line_01.flac|Second.|",
        "line_02|Third.",
        "",
        "line_00|Again.",
    ]
    (folder / "metadata.csv").write_text("\n".join([*lines, "no column", "a|b|c|d"]), encoding="utf-8-sig")
    found, problems = find_recordings(folder)
    assert [(r.path.name, r.text) for r in found] == [
        ("line_00.wav", "In eighteen sixty-five."), ("line_01.flac", "Second."), ("line_02.wav", "Third."),
    ]  # fmt: skip
    told = [str(problem) for problem in problems]
    assert told[:3] == [
        "line 5 of metadata.csv: has 'line_00' once more",
        "line 6 of metadata.csv: should be NAME|text, not 'no column'",
        "line 7 of metadata.csv: should be NAME|text, not 'a|b|c|d'",
    ]
    assert len(told) == 3 + len(TEXTS) - 3


@pytest.mark.parametrize(("made", "message"), [(False, "cannot read"), (True, "no recordings")])
def test_a_folder_without_recordings(made: bool, message: str, tmp_path: Path) -> None:
    if made:
        (tmp_path / "none").mkdir()
    with pytest.raises(UnusableRecordings, match=message):
        find_recordings(tmp_path / "none")


@pytest.mark.parametrize(
    ("flags", "message"),
    [(("--rank", "0"), "--rank must be at least 1"), (("--seed", "-1"), "--seed"), (("--dropout", "1"), "--dropout")],
)
def test_numbers_that_mean_nothing(
    flags: tuple[str, str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("--recordings", folder, "--out", tmp_path / "out", *flags)
    assert message in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------- adapters


def test_an_adapter_begins_as_nothing() -> None:
    weight = torch.randn(5, 7)
    part = LowRank.beginning(weight, rank=2, alpha=4.0)
    assert torch.equal(part(weight), weight) and part.scale == 2.0
    with torch.no_grad():
        part.up.fill_(1.0)
    torch.testing.assert_close(part(weight) - weight, 2.0 * part.down.sum(1, keepdim=True).expand(5, 7))


def test_layers_are_chosen_by_number() -> None:
    assert parse_layers("all", 3) == [0, 1, 2]
    assert parse_layers("0,4-6,5", 8) == [0, 4, 5, 6]
    for text in ("", "x", "3-1", "0-8", "-1"):
        with pytest.raises(ConfigError, match="--layers"):
            parse_layers(text, 8)


def test_only_the_chosen_layers_change(tiny_model_dir: Path) -> None:
    model = gpt_of(tiny_model_dir)
    adapter = Adapter.beginning(model, 2, 2.0, [1])
    assert set(adapter.by_name()) == {f"gpt.h.1.{name}" for name in PROJECTIONS}


# ---------------------------------------------------------------------------------------------- model folders


def test_the_released_layout_stays(tmp_path: Path) -> None:
    """Random weights as the released files have them: a flat pickle, here without a file of the hub's cache."""
    base, out, cache = tmp_path / "base", tmp_path / "out", tmp_path / "cache"
    write_random_checkpoint(base, "tiny")
    hub = cache / "models--funasr--campplus" / "snapshots" / "0" / "campplus_cn_common.bin"
    hub.parent.mkdir(parents=True)
    (base / "hf_cache" / "campplus_cn_common.bin").rename(hub)
    (base / "glossary.yaml").write_text("AI: artificial intelligence\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        files = locate(base)[1]
        weights = read_tensors(files.gpt)
        adapter = Adapter({"gpt.h.0.attn.c_attn": LowRank.beginning(weights["gpt.h.0.attn.c_attn.weight"], 2, 2.0)})
        torch.nn.init.ones_(adapter.by_name()["gpt.h.0.attn.c_attn"].up)
        write_model(files, out, adapter.merged(weights), "a test")
    assert (out / "hf_cache" / "campplus_cn_common.bin").samefile(hub) or hub.stat().st_size <= COPIED_BYTES
    assert (out / "glossary.yaml").is_file() and not (out / "config.yaml").samefile(base / "config.yaml")
    before, after = (torch.load(folder / "gpt.pth", weights_only=True) for folder in (base, out))
    assert list(before) == list(after)
    assert all(before[key].shape == after[key].shape and before[key].dtype == after[key].dtype for key in before)
    assert [key for key in before if not torch.equal(before[key], after[key])] == ["gpt.h.0.attn.c_attn.weight"]
    gpt_of(out)


def test_large_files_are_linked(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_copy, "COPIED_BYTES", 10_000)
    files = locate(tiny_model_dir)[1]
    write_model(files, tmp_path / "out", {}, "a test")
    for path in files.paths():
        linked = (tmp_path / "out" / path.relative_to(tiny_model_dir)).samefile(path)
        assert linked == (path.stat().st_size > 10_000 and path != files.gpt), path


def test_what_cannot_be_copied_is_told(tiny_model_dir: Path, tmp_path: Path) -> None:
    files = locate(tiny_model_dir)[1]
    with pytest.raises(CheckpointError, match=r"gpt\.pth has no tensors model\.nonsense"):
        write_model(files, tmp_path / "out", {"nonsense": torch.zeros(1)}, "a test")
    assert not list((tmp_path / "out").rglob("*.partial")) and not (tmp_path / "out" / "config.yaml").exists()
    outside = Path(shutil.copy(files.s2mel, tmp_path))
    with pytest.raises(CheckpointError, match="outside the model folder"):
        write_model(dataclasses.replace(files, s2mel=outside), tmp_path / "other", {}, "a test")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the model"):
        write_model(files, tmp_path / "file", {}, "a test")
