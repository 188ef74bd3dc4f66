"""Trains the style encoder (CAM++) to tell voices apart.

    python -m training.train_style_encoder --data DATA --out OUT --minutes 3

Classification of the training voices with the additive angular margin softmax (Deng et al., "ArcFace", 2019) on
crops of two to four seconds that went through simulated rooms and microphones. A voice's crops come in all its
emotional styles, so that the vector says who speaks and not in which mood. A second, linear reading of the vector must
find the voice's place among the teacher's voices, which tells more at every step than one name among thousands, and
keeps voices apart that are. What is left on voices that were never
heard is the figure to look at: the equal error rate on the held-out split, between different sentences.
"""

from __future__ import annotations

import argparse
import math
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indextts.audio import resample_22k_to_16k, style_features
from indextts.config_file import load_model_config
from indextts.models.campplus import CAMPPlus
from training import loop
from training.augment import augment
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.extract_styles import embed_utterances
from training.graphs import Figures, step_unless_broken, trainable_step

CROP_S = (2.0, 2.4, 2.8, 3.2, 3.6, 4.0)  # few lengths, so that convolutions and FFTs are planned once
MARGIN = 0.2  # radians
MARGIN_RISE = (0.4, 0.8)  # part of the run over which the margin grows from zero
SCALE = (10.0, 30.0)  # of the cosines, at the beginning and from the end of the margin's rise on
PEAK_LR = 7e-4  # at 2e-3 the vectors collapse before they say anything about the voice
WEIGHT_DECAY = 0.02
MAX_GRADIENT_NORM = 20.0
PLACE_WEIGHT = 8.0
PITCH_PER_OCTAVE = 8.0  # so that the rates at which voices are played vary about as much as their places
REFRESH_STEPS = 100
HELDOUT_UTTERANCES = 1200


class AngularMarginLoss(nn.Module):
    """Softmax over cosines with class centres, with a margin added to the angle of the right one."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(classes, dim))

    def forward(self, style: Tensor, voice: Tensor, margin: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Style vectors ``[B, dim]`` and voice ids ``[B]`` to the mean loss and the accuracy without margin."""
        cosine = F.linear(F.normalize(style.float()), F.normalize(self.centres)).clamp(-1 + 1e-6, 1 - 1e-6)
        right = cosine.gather(1, voice[:, None])
        # cos(angle + margin); beyond pi - margin it would rise again, so it goes on as a straight line there
        moved = right * margin.cos() - (1 - right.square()).sqrt() * margin.sin()
        moved = torch.where(right > -margin.cos(), moved, right - margin.sin() * margin)
        accuracy = (cosine.argmax(1) == voice).float().mean()
        return F.cross_entropy(scale * cosine.scatter(1, voice[:, None], moved), voice), accuracy


def places_of(data: SpeechData) -> Tensor:
    """Where each voice lies among the teacher's voices, and at which rate it is played, ``[V, K + 1]``."""
    rows = [[*voice["place"], PITCH_PER_OCTAVE * math.log2(voice["pitch"])] for voice in data.voices]
    return torch.tensor(rows, device=data.device)


class TrainStep(nn.Module):
    """One step of the training; nothing in it waits for the device, so that it can be captured as a CUDA graph."""

    def __init__(self, model: CAMPPlus, places: Tensor) -> None:
        super().__init__()
        self.model, self.places = model, places
        self.criterion = AngularMarginLoss(model.dim, len(places)).to(places.device)
        self.place = nn.Linear(model.dim, places.shape[1]).to(places.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters(), PEAK_LR, weight_decay=WEIGHT_DECAY, fused=True, capturable=places.is_cuda
        )

    def forward(self, features: Tensor, voice: Tensor, margin: Tensor, scale: Tensor) -> Figures:
        """``features [B, F, 80]`` of the voices ``voice [B]``; ``margin`` and ``scale`` are scalars."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(features.device.type, torch.bfloat16, cache_enabled=False):
            style = self.model(features).float()
        loss, accuracy = self.criterion(style, voice, margin, scale)
        place_error = (self.place(F.normalize(style) * self.model.dim**0.5) - self.places[voice]).square().mean()
        (loss + PLACE_WEIGHT * place_error).backward()
        step_unless_broken(self.optimizer, [nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT_NORM)])
        return {"loss": loss.detach(), "accuracy": accuracy, "place_error": place_error.detach()}


def margin_at(progress: float) -> float:
    low, high = MARGIN_RISE
    return MARGIN * min(1.0, max(0.0, (progress - low) / (high - low)))


def scale_at(progress: float) -> float:
    first, last = SCALE
    return first + (last - first) * min(1.0, progress / MARGIN_RISE[1])


def draw_crops(data: SpeechData, rows: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
    """An excerpt of each utterance ``[B, num_samples]``; a shorter utterance is repeated until it fills it."""
    length = data.num_samples(rows)
    spare = (length - num_samples).clamp(min=0)
    start = (torch.rand(len(rows), generator=generator, device=data.device) * (spare + 1)).long()
    wave = data.wave(rows, start, num_samples)
    position = torch.arange(num_samples, device=data.device) % length.clamp(max=num_samples)[:, None]
    return wave.gather(1, position)


def equal_error_rate(same: Tensor, different: Tensor) -> float:
    """Error rate at the threshold at which as many same pairs are refused as different pairs are taken."""
    scores = torch.cat([same, different])
    order = scores.argsort(descending=True)
    is_same = torch.cat([torch.ones_like(same), torch.zeros_like(different)])[order].double()
    missed = 1 - is_same.cumsum(0) / len(same)
    taken = (1 - is_same).cumsum(0) / len(different)
    at = (missed - taken).abs().argmin()
    return float((missed[at] + taken[at]) / 2)


@torch.no_grad()
def verify(model: CAMPPlus, data: SpeechData, count: int) -> dict[str, float]:
    """Verification figures on held-out voices: clean against clean, and degraded ("noisy") against clean."""
    if len(data) < 4:
        return {}
    model.eval()
    generator = torch.Generator(data.device).manual_seed(0)
    rows = torch.randperm(len(data), generator=generator, device=data.device)[:count]
    clean = F.normalize(embed_utterances(model, data, rows))
    noisy = F.normalize(embed_utterances(model, data, rows, noise=generator))
    model.train()
    voice, sentence, mood = data.voice[rows], data.sentence[rows], data.style[rows]
    other_sentence = sentence[:, None] != sentence
    same = (voice[:, None] == voice) & other_sentence
    different = (voice[:, None] != voice) & other_sentence
    if not same.any() or not different.any():
        return {}
    cosine, noisy_cosine = clean @ clean.T, noisy @ clean.T
    figures = {
        "eer": equal_error_rate(cosine[same], cosine[different]),
        "eer_noisy": equal_error_rate(noisy_cosine[same], noisy_cosine[different]),
        "same": float(cosine[same].mean()),
        "different": float(cosine[different].mean()),
        "same_noisy": float(noisy_cosine[same].mean()),
    }
    other_mood = same & (mood[:, None] != mood)
    if other_mood.any():
        figures["eer_other_style"] = equal_error_rate(cosine[other_mood], cosine[different])
    return figures


class VoiceSampler:
    """Draws utterances so that all voices are equally likely, however many utterances each has."""

    def __init__(self, data: SpeechData) -> None:
        self.data = data
        self.balance()

    def balance(self) -> None:
        """Take the utterances into account that ``data`` has read since."""
        count = torch.bincount(self.data.voice, minlength=self.data.num_voices)
        self._weights = 1 / count[self.data.voice].float()
        self.num_voices = int((count > 0).sum())

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Indices ``[n]``."""
        return torch.multinomial(self._weights, n, replacement=True, generator=generator)


def train(options: argparse.Namespace) -> None:
    device = loop.device_for(options.smoke)
    torch.manual_seed(options.seed)
    generator = torch.Generator(device).manual_seed(options.seed)
    data, heldout = (SpeechData(options.data, device, split) for split in ("train", "heldout"))
    config = load_model_config(options.config).s2mel.style_encoder
    model = CAMPPlus(config).to(device).train()
    model.head.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    step_of = TrainStep(model, places_of(data))
    run = loop.Loop("style_encoder", options, {"step": step_of}, step_of.optimizer)
    take = trainable_step(step_of, step_of.optimizer, device, run.log.info)
    generator.manual_seed(options.seed + run.step)
    sampler = VoiceSampler(data)
    run.log.info("%d utterances of %d voices; %d held out", len(data), sampler.num_voices, len(heldout))

    for step in run.steps():
        rows = sampler.draw(8 if options.smoke else options.batch_size, generator)
        crop_s = random.Random(step).choice(CROP_S)
        wave = draw_crops(data, rows, round(crop_s * SAMPLE_RATE_HZ), generator)
        features = style_features(resample_22k_to_16k(augment(wave, SAMPLE_RATE_HZ, generator)))
        margin, scale = (torch.full((), f(run.progress), device=device) for f in (margin_at, scale_at))
        run.report(**take(features, data.voice[rows], margin, scale))
        if step % REFRESH_STEPS == 0 and data.refresh() + heldout.refresh():
            sampler.balance()
            run.log.info("now %d utterances of %d voices", len(data), sampler.num_voices)
        if run.evaluation_due():
            report_heldout(run, model, heldout, options.smoke)
    heldout.refresh()
    report_heldout(run, model, heldout, options.smoke)
    loop.save_weights(options.out / "campplus.safetensors", model.state_dict())


def report_heldout(run: loop.Loop, model: CAMPPlus, heldout: SpeechData, smoke: bool) -> None:
    figures = verify(model, heldout, 24 if smoke else HELDOUT_UTTERANCES)
    text = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
    run.log.info("%5.0f s  held out: %s", run.elapsed_s, text or "too few utterances yet")


if __name__ == "__main__":
    train(loop.arguments(__doc__, minutes=3, batch_size=512))
