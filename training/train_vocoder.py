"""Trains the vocoder (BigVGAN) to turn mel spectrograms of the generated speech back into its waveform.

    python -m training.train_vocoder --data DATA --out OUT --minutes 22

First the generator learns from spectral distances alone, which is fast and brings it near; then critics of the
waveform and of its spectrograms join, whose judgement removes the buzz that spectral distances do not hear.
Generator and critics step together, from one pass: the critics' view of the recording serves their own loss and
the feature matching. What is exported is a running average of the generator's weights.

On a GPU the activations are compiled and the whole training step is replayed as one CUDA graph, for it consists
of thousands of small kernels. A part of the spectrograms is blurred and made noisy, since in use they come from
another network.
"""

from __future__ import annotations

import argparse
import copy
import wave as wave_file
from pathlib import Path

import torch
from torch import Tensor, nn

from indextts.audio import log_mel
from indextts.config import SpectrogramConfig, VocoderConfig
from indextts.config_file import load_model_config
from indextts.models.bigvgan import BigVGAN
from indextts.models.snake import AntiAliasedSnake
from indextts.models.weight_norm import fold_weight_norm
from training import loop
from training.dataset import SAMPLE_RATE_HZ, SpeechData
from training.discriminators import VocoderDiscriminator
from training.graphs import Figures, step_unless_broken, trainable_step
from training.vocoder_losses import (
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    multi_scale_mel_loss,
    stft_distance,
)

PEAK_LR = 5e-4
BETAS = (0.8, 0.99)
ADVERSARIAL_FROM = 0.07  # share of the time after which the critics join
MEL_WEIGHT, STFT_WEIGHT, MATCHING_WEIGHT = 15.0, 5.0, 2.0
MAX_GENERATOR_NORM, MAX_DISCRIMINATOR_NORM = 500.0, 50.0
EMA_HALF_STEPS = 500  # steps after which a weight's share in the running average has halved
GAIN_DB = (-14.0, 3.0)
MAX_PEAK = 0.98
DEGRADED_SHARE = 0.3  # of the spectrograms
MAX_NOISE, MAX_BLUR = 0.25, 0.5  # in nepers; share of the neighbours in frequency
MARGIN_FRAMES = 4  # so that a spectrogram's frames see beyond the excerpt
MEL_MEAN, MEL_DEVIATION = -5.0, 2.5  # rough, for the initialisation
REFRESH_STEPS = 500
SAMPLES_EVERY_S = 300.0
HELDOUT_UTTERANCES, SAMPLE_UTTERANCES, HELDOUT_S = 32, 4, 3.5


def initialise(model: BigVGAN) -> None:
    """Start as a plain up-sampler of the centred spectrogram: branches of the residual blocks begin small."""

    def scale_of(name: str) -> float:
        if ".convs2." in name:
            return 0.1
        return {"conv_pre": 0.5 / MEL_DEVIATION, "conv_post": 0.2}.get(name, 1.0)

    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                taps = module.kernel_size[0] / module.stride[0]  # that reach one output sample
                std = scale_of(name) * (module.in_channels * taps) ** -0.5
                value = torch.randn_like(module.weight) * std
                module.load_state_dict({"weight": value}, strict=False)  # as weight norm's pair
                if module.bias is not None:
                    module.bias.zero_()
        assert model.conv_pre.bias is not None
        model.conv_pre.bias.copy_(-MEL_MEAN * model.conv_pre.weight.sum((1, 2)))


def draw_batch(
    data: SpeechData, spectrogram: SpectrogramConfig, size: int, num_frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random excerpts at random levels: mel spectrograms ``[B, 80, F]`` and their waveforms ``[B, N]``."""
    hop = spectrogram.hop_length
    num_samples, margin = num_frames * hop, MARGIN_FRAMES * hop

    def uniform(low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator, device=data.device)

    ends = data.length_s.double().cumsum(0)
    rows = torch.searchsorted(ends, uniform().double() * ends[-1]).clamp(max=len(data) - 1)
    spare = (data.num_samples(rows) - num_samples).clamp(min=0)
    start = (uniform() * (spare + 1)).long()
    wave = data.wave(rows, start - margin, num_samples + 2 * margin)
    gain = 10 ** (uniform(*GAIN_DB) / 20)
    gain = torch.minimum(gain, MAX_PEAK / wave.abs().amax(1).clamp(min=1e-3))
    wave = wave * gain[:, None]
    mel = log_mel(wave, spectrogram)[..., MARGIN_FRAMES : MARGIN_FRAMES + num_frames]
    return degrade(mel, generator), wave[:, margin : margin + num_samples]


def degrade(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Blur a part of the spectrograms ``[B, 80, F]`` along frequency and add noise, as a predicted one has."""
    shape = (len(mel), 1, 1)
    chosen, noise, blur = torch.rand(3, *shape, generator=generator, device=mel.device)
    chosen = (chosen < DEGRADED_SHARE).float()
    neighbours = torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(mel, (0, 0, 1, 1), mode="replicate"), (3, 1), stride=1
    )
    mel = mel + chosen * blur * MAX_BLUR * (neighbours - mel)
    white = torch.randn(mel.shape, generator=generator, device=mel.device)
    return mel + chosen * noise * MAX_NOISE * white


class TrainStep:
    """One step of generator and critics, on fixed buffers, so that it can be captured as a CUDA graph."""

    def __init__(self, generator: BigVGAN, device: torch.device, width: float = 1.0) -> None:
        self.generator, self.device = generator, device
        self.average = copy.deepcopy(generator).requires_grad_(False)
        self.discriminator = VocoderDiscriminator(width).to(device)
        self.discriminator.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.generator_weights: list[Tensor] = list(generator.parameters())
        self.discriminator_weights: list[Tensor] = list(self.discriminator.parameters())
        self.average_weights: list[Tensor] = list(self.average.parameters())
        self.optimizer = torch.optim.AdamW(
            [{"params": self.generator_weights}, {"params": self.discriminator_weights}],
            PEAK_LR,
            BETAS,
            weight_decay=0.0,
            fused=True,
            capturable=device.type == "cuda",
        )
        self._decay = 0.5 ** (1 / EMA_HALF_STEPS)

    def compute(self, mel: Tensor, wave: Tensor, *, adversarial: bool) -> Figures:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            fake = self.generator(mel).squeeze(1).float()
            with torch.autocast(self.device.type, enabled=False):
                mel_loss, stft_loss = multi_scale_mel_loss(fake, wave), stft_distance(fake, wave)
            figures: Figures = {"mel": mel_loss, "stft": stft_loss}
            loss = MEL_WEIGHT * mel_loss
            if adversarial:
                # Critics do not learn from the generator's loss: here their weights count as constants.
                self.discriminator.requires_grad_(False)
                judged = self.discriminator(fake)
                self.discriminator.requires_grad_(True)
                real = self.discriminator(wave)
                figures["adversarial"] = adversarial_loss(judged)
                figures["matching"] = feature_matching_loss(real, judged)
                loss = loss + figures["adversarial"] + MATCHING_WEIGHT * figures["matching"]
                figures["critics"] = discriminator_loss(real, self.discriminator(fake.detach()))
            else:
                loss = loss + STFT_WEIGHT * stft_loss
        loss.backward()
        norms = [nn.utils.clip_grad_norm_(self.generator_weights, MAX_GENERATOR_NORM)]
        if adversarial:
            figures["critics"].backward()
            norms.append(nn.utils.clip_grad_norm_(self.discriminator_weights, MAX_DISCRIMINATOR_NORM))
        figures |= dict(zip(("norm", "critics_norm"), norms, strict=False))
        step_unless_broken(self.optimizer, norms)
        with torch.no_grad():
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                self.average_weights, self.generator_weights, 1 - self._decay
            )
        return {name: value.detach() for name, value in figures.items()}


def compile_activations(model: nn.Module) -> None:
    """Fuse each activation into a few kernels; the shapes of a training are fixed."""
    torch._dynamo.config.recompile_limit = 64
    # Filtered signals are read twelve times: keep them in memory instead of computing their sines twelve times.
    options = {"realize_reads_threshold": 2}
    for module in model.modules():
        if isinstance(module, AntiAliasedSnake):
            module.compile(dynamic=False, options=options)


class Heldout:
    """Figures and samples of voices that the training never hears."""

    def __init__(self, data: SpeechData, spectrogram: SpectrogramConfig, out: Path, smoke: bool) -> None:
        self.data, self.spectrogram, self.out = data, spectrogram, out
        self.utterances = 2 if smoke else HELDOUT_UTTERANCES
        self.num_frames = int((0.5 if smoke else HELDOUT_S) * SAMPLE_RATE_HZ) // spectrogram.hop_length
        self.next_samples_s = 0.0
        self.rows: Tensor | None = None

    def _pick(self) -> Tensor | None:
        """The same utterances at every call, as soon as there are enough."""
        if self.rows is None and self.data.refresh() + len(self.data) >= self.utterances:
            order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(0))
            self.rows = order[: self.utterances].to(self.data.device)
        return self.rows

    @torch.no_grad()
    def evaluate(self, model: BigVGAN, elapsed_s: float, final: bool = False) -> str:
        """Figures as text; every few minutes, and at the end, also samples as files."""
        rows = self._pick()
        if rows is None:
            return "too few utterances yet"
        real = self.data.wave(rows, 0, self.num_frames * self.spectrogram.hop_length)
        mel = log_mel(real, self.spectrogram)
        fake = torch.cat([model(part).squeeze(1) for part in mel.split(8)])
        if final or elapsed_s >= self.next_samples_s:
            self.next_samples_s = elapsed_s + SAMPLES_EVERY_S
            name = "final" if final else f"{elapsed_s:04.0f}s"
            write_samples(self.out / f"vocoder_samples_{name}.wav", fake[:SAMPLE_UTTERANCES])
            write_samples(self.out / "vocoder_samples_recording.wav", real[:SAMPLE_UTTERANCES])
        mel_error = (log_mel(fake, self.spectrogram) - mel).abs().mean()
        return f"mel L1 {mel_error:.4f}  STFT {stft_distance(fake, real):.4f}"


def write_samples(path: Path, waves: Tensor) -> None:
    """Write waveforms ``[B, N]`` one after the other into an int16 WAV file."""
    samples = (waves.clamp(-1, 1) * 32767).round().to(torch.int16).flatten().cpu().numpy()
    with wave_file.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())


def export(model: BigVGAN, config: VocoderConfig, path: Path) -> None:
    """Write the weights with weight norm folded, under the official names."""
    plain = BigVGAN(config)
    plain.load_state_dict(model.state_dict())
    loop.save_weights(path, fold_weight_norm(plain).state_dict())


def train(options: argparse.Namespace) -> None:
    device = loop.device_for(options.smoke)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    random = torch.Generator(device).manual_seed(options.seed)
    data, heldout_data = (SpeechData(options.data, device, split) for split in ("train", "heldout"))
    config = load_model_config(options.config)
    spectrogram = config.s2mel.preprocess_params.spect_params
    generator = BigVGAN(config.vocoder)
    initialise(generator)
    step = TrainStep(generator.to(device), device, width=0.25 if options.smoke else options.width)
    parts = {"generator": generator, "average": step.average, "discriminator": step.discriminator}
    run = loop.Loop("vocoder", options, parts, step.optimizer)
    random.manual_seed(options.seed + run.step)
    if options.compile and not options.smoke:
        compile_activations(generator)
    take = trainable_step(step.compute, step.optimizer, device, run.log.info, graphed=bool(options.graph))
    size, num_frames = (2, 16) if options.smoke else (options.batch_size, options.segment_frames)
    heldout = Heldout(heldout_data, spectrogram, options.out, options.smoke)
    run.log.info(
        "%.2f M parameters, critics %.2f M; %d utterances, %.1f h",
        sum(p.numel() for p in step.generator_weights) / 1e6,
        sum(p.numel() for p in step.discriminator_weights) / 1e6,
        len(data),
        data.length_s.sum() / 3600,
    )

    for number in run.steps():
        mel, wave = draw_batch(data, spectrogram, size, num_frames, random)
        run.report(**take(mel, wave, adversarial=run.progress >= ADVERSARIAL_FROM))
        if number % REFRESH_STEPS == 0 and data.refresh():
            run.log.info("now %d utterances, %.1f h", len(data), data.length_s.sum() / 3600)
        if run.evaluation_due():
            figures = heldout.evaluate(step.average, run.elapsed_s)
            run.log.info("%5.0f s  held out: %s", run.elapsed_s, figures)
    run.log.info("held out: %s", heldout.evaluate(step.average, run.elapsed_s, final=True))
    export(step.average, config.vocoder, options.out / "vocoder.safetensors")


if __name__ == "__main__":
    train(loop.arguments(__doc__, minutes=22, batch_size=32, segment_frames=32, width=1.0, compile=1, graph=1))
