"""Train the text-to-code language model, together with its speaker and emotion encoders.

    python -m training.train_gpt --data DATA --out OUT --minutes 10

Reads the codes and embeddings that ``training/extract_semantics.py`` wrote into OUT and the text ids of all sentences
(``--tokens``). The model sees exactly the sequence that it sees when it speaks; the two ways of numbering the codes
(decoding skips a position, the second pass does not) take turns. Attention is shown where in the text the teacher
was. Some emotions are told instead of being heard: by a vector for each that is learnt with the rest, towards which the
one heard in the speaker's prompt goes by the intensity, just as the sliders will do it. Writes ``OUT/gpt.safetensors``
and ``OUT/gpt_emotions.safetensors``: of the averaged weights, those that did best on voices and sentences never trained
on. ``--init FILE`` begins with earlier weights, all but those of the codes: another codec's codes mean something else.
With ``--same-codec 1`` it takes those as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from indextts.config import GPTConfig, ModelConfig, SamplingParams
from indextts.config_file import load_model_config
from indextts.decoding.backend import EagerBackend
from indextts.decoding.search import generate
from indextts.models.conformer import sinusoidal_positions
from indextts.models.gpt import UnifiedVoice
from training.attention_guide import AttentionGuide
from training.dataset import SpeechData
from training.gpt_batches import GPTBatch, GPTBatches
from training.graphs import Figures, step_unless_broken, trainable_step
from training.loop import Loop, arguments, device_for, save_weights
from training.semantics import Semantics
from training.styles import STYLE_NAMES, TOLD_EMOTIONS

PEAK_LR = 1.2e-3
# The prompts' encoders go slowly and begin late: else they become constants within a few steps, which is the shortest
# way to the frequencies of the codes. Their subsampling goes slowest, since it adds up thousands of positive features.
ENCODERS = ("conditioning_encoder", "perceiver_encoder", "emo_", "emovec_")
SUBSAMPLING = ("conditioning_encoder.embed.", "emo_conditioning_encoder.embed.")
ENCODERS_PEAK_LR, SUBSAMPLING_PEAK_LR = 2.5e-4, 1.2e-5
ENCODERS_BEGIN = 0.05  # share of the time
WEIGHT_DECAY = 0.05
DROPOUT = 0.1  # the default; behind each attention and each feed-forward of the trunk
LABEL_SMOOTHING = 0.02
TEXT_LOSS_WEIGHT = 0.02
DECODING_POSITIONS = 0.6
CODE_NOISE = 0.15  # at most this share of a row's code inputs is replaced, so that one slip is not the end
CODES_PER_TEXT_ID = 8  # on average
POSITION_SCALE = 0.03  # about the size of the other embeddings
GUIDE_WEIGHT = 0.2
AVERAGE_STEPS = 800
HELDOUT_UTTERANCES = 256
SAMPLED_UTTERANCES = 24
WORTH_EVERY_EVALUATIONS = 4
FIRST_CODES = 25  # of an utterance: later its codes so far tell the style, and the emotion prompt says nothing new
CODE_TABLES = ("mel_embedding.", "mel_head.")
TOLD = 0.35  # how often an emotion is told
PLAIN_SAMPLING = SamplingParams(num_beams=1, repetition_penalty=1.0)


def initialise(model: UnifiedVoice) -> None:
    """GPT-2's initial weights: small embeddings, and residual branches that shrink with depth.

    Positions begin as sinusoids, of codes and text in one measure of time: neighbours are alike, and a code is like the
    text that is about to be spoken. Attention finds the place in long texts much sooner than from random positions.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(("embedding.weight", "emb.weight", "text_head.weight", "mel_head.weight")):
            nn.init.normal_(parameter, std=0.02)
        elif name.startswith("gpt.h.") and name.endswith("c_proj.weight"):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * model.config.layers))
    for positions, pace in ((model.mel_pos_embedding, 1), (model.text_pos_embedding, CODES_PER_TEXT_ID)):
        table = positions.emb.weight
        size, width = table.shape
        with torch.no_grad():
            table.copy_(sinusoidal_positions(size * pace, width)[0, ::pace] * POSITION_SCALE)


def add_dropout(model: UnifiedVoice, rate: float) -> None:
    """Drop outputs of the residual branches while training; the modules themselves know no dropout."""

    def drop(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return F.dropout(output, rate, module.training)

    for name, module in model.gpt.named_modules():
        if name.endswith(("attn", "mlp")):
            module.register_forward_hook(drop)


def add_told_emotions(model: UnifiedVoice) -> None:
    """A vector ``[model_dim]`` for each style; that of the neutral one is never used."""
    table = nn.Embedding(len(STYLE_NAMES), model.config.model_dim)
    nn.init.normal_(table.weight, std=0.02)
    model.add_module(TOLD_EMOTIONS, table)


def emotion_of(model: UnifiedVoice, batch: GPTBatch) -> Tensor:
    """Emotion vectors ``[B, D]``: heard, and where one is told, that much of the way to it."""
    heard = model.emotion_vector(batch.emotion, batch.emotion_lengths)
    if not hasattr(model, TOLD_EMOTIONS):
        return heard
    told = model.get_submodule(TOLD_EMOTIONS)(batch.style)
    return model.merge_emotion(heard.float(), told, batch.intensity[:, None])


def begin_with(model: UnifiedVoice, weights: Mapping[str, Tensor], same_codec: bool = False) -> list[str]:
    """Take over what has the same shape, the tables of the codes only of the ``same_codec``; the names of all taken."""
    own = model.state_dict()
    taken = {
        name: value
        for name, value in weights.items()
        if name in own and value.shape == own[name].shape and (same_codec or not name.startswith(CODE_TABLES))
    }
    model.load_state_dict(taken, strict=False)
    return list(taken)


@torch.no_grad()
def begin_with_frequencies(head: nn.Linear, counts: Tensor) -> None:
    """Let a head begin with how often each id occurs; that is learnt first otherwise, by all weights at once."""
    head.bias.copy_(((counts.float() + 1) / (counts.sum() + len(counts))).log())


def parameter_groups(model: nn.Module) -> list[dict]:
    """Matrices decay; biases, norms and embeddings do not. The encoders of the prompts have their own pace."""
    groups: dict[tuple[float, bool], dict] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim >= 2 and "embedding" not in name and not name.endswith("latents")
        decays = decays and not name.startswith(TOLD_EMOTIONS)
        lr, begin = PEAK_LR, 0.0
        if name.startswith(ENCODERS):
            lr = SUBSAMPLING_PEAK_LR if name.startswith(SUBSAMPLING) else ENCODERS_PEAK_LR
            begin = ENCODERS_BEGIN
        group = {"params": [], "lr": lr, "begin": begin, "weight_decay": WEIGHT_DECAY if decays else 0.0}
        groups.setdefault((lr, decays), group)["params"].append(parameter)
    return list(groups.values())


def targets_of(batch: GPTBatch, config: GPTConfig) -> tuple[Tensor, Tensor]:
    """What the logits should say: codes then stop ``[B, M + 1]``, text then stop ``[B, L + 1]``; -100 is padding."""
    codes = _with_stop(batch.codes, batch.code_lengths, config.stop_mel_token)
    return codes, _with_stop(batch.text, batch.text_lengths, config.stop_text_token)


def _with_stop(ids: Tensor, lengths: Tensor, stop: int) -> Tensor:
    position = torch.arange(ids.shape[1] + 1, device=ids.device)
    ids = F.pad(ids, (0, 1)).masked_fill(position > lengths[:, None], -100)
    return ids.masked_fill(position == lengths[:, None], stop)


def with_noise(codes: Tensor, codebook_size: int) -> Tensor:
    """Replace a random share of each row, 0 to ``CODE_NOISE``, by random codes."""
    share = torch.rand(len(codes), 1, device=codes.device) * CODE_NOISE
    replaced = torch.rand(codes.shape, device=codes.device) < share
    return torch.where(replaced, torch.randint_like(codes, codebook_size), codes)


def logits_of(model: UnifiedVoice, batch: GPTBatch, codes: Tensor, decoding_positions: bool) -> tuple[Tensor, Tensor]:
    """Code and text logits of a batch, its encoders included; in bfloat16 on a GPU."""
    # A captured graph allows no cache.
    with torch.autocast(codes.device.type, torch.bfloat16, enabled=codes.is_cuda, cache_enabled=False):
        return model.training_logits(
            model.condition(batch.prompt, batch.prompt_lengths),
            emotion_of(model, batch),
            batch.text,
            batch.text_lengths,
            codes,
            batch.code_lengths,
            batch.length_hints,
            decoding_positions=decoding_positions,
        )


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the targets that are not padding."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), label_smoothing=smoothing)


class BestWeights(nn.Module):
    """The weights with the lowest held-out cross-entropy so far; a module, so that checkpoints keep it."""

    cross_entropy: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("cross_entropy", torch.tensor(math.inf))

    def offer(self, model: nn.Module, value: float) -> None:
        if value < float(self.cross_entropy):
            self.cross_entropy.fill_(value)
            self.model.load_state_dict(model.state_dict())


@dataclass(frozen=True)
class TrainStep:
    """One step of the training; nothing in it waits for the device, so that it can be captured as a CUDA graph."""

    model: UnifiedVoice
    optimizer: torch.optim.AdamW
    config: GPTConfig
    guide: AttentionGuide | None  # None where nobody knows which text each code speaks

    def __call__(self, *tensors: Tensor, decoding_positions: bool) -> Figures:
        """``tensors`` are those of a :class:`GPTBatch` and, last, the codes with noise."""
        batch, noisy = GPTBatch(*tensors[:-1]), tensors[-1]
        code_logits, text_logits = logits_of(self.model, batch, noisy, decoding_positions)
        codes, text = targets_of(batch, self.config)
        code_loss = cross_entropy(code_logits, codes, LABEL_SMOOTHING)
        text_loss = cross_entropy(text_logits, text)
        losses, total = {"code": code_loss, "text": text_loss}, code_loss + TEXT_LOSS_WEIGHT * text_loss
        if self.guide is not None:
            losses["guide"] = self.guide.loss(batch)
            total = total + GUIDE_WEIGHT * losses["guide"]
        take_step(self.optimizer, total)
        return {name: loss.detach() for name, loss in losses.items()}


def take_step(optimizer: torch.optim.AdamW, loss: Tensor, max_norm: float = 1.0) -> None:
    """Backward, clip, and step; the host does not wait to learn whether the gradients were finite."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    step_unless_broken(optimizer, [nn.utils.clip_grad_norm_(weights, max_norm)])


@torch.no_grad()
def average_into(averaged: nn.Module, model: nn.Module, step: int) -> None:
    """Exponential moving average over about ``AVERAGE_STEPS``, fewer at the beginning."""
    weight = max(1 / AVERAGE_STEPS, 9 / (step + 10))
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        list(averaged.parameters()), list(model.parameters()), weight
    )


@dataclass(frozen=True)
class HeldOut:
    """Fixed batches of voices and sentences that are never trained on."""

    batches: list[GPTBatch]

    @classmethod
    def draw(cls, source: GPTBatches, limit: int) -> HeldOut:
        order = np.random.default_rng(0).permutation(source.usable)[:limit]
        by_length = order[np.argsort(source.row_tokens(order))]
        parts = np.array_split(by_length, max(1, len(by_length) // 32))
        return cls([source.gather(source.choose(part)) for part in parts])

    @torch.no_grad()
    def score(self, model: UnifiedVoice, worth: bool = True) -> dict[str, float]:
        """Cross-entropy and accuracy of the next code, for both numberings of the codes.

        And, with ``worth``, what text, speaker's prompt, emotion's prompt and the told emotion are good for: how much
        the cross-entropy rises when every row is given another row's, of all codes and of the first ones. A text that
        is not read has a worth of nothing.
        """
        figures = {}
        for name, decoding_positions in (("decode", True), ("second_pass", False)):
            loss, hits = self._sums(model, self.batches, decoding_positions)
            figures |= {f"{name}_ce": loss, f"{name}_top1": hits}
        if worth:
            begun = self._sums(model, self.batches, True, FIRST_CODES)[0]
            for name in ("text", "prompt", "emotion", "style"):
                exchanged = [_exchanged(batch, name) for batch in self.batches]
                figures[f"{name}_worth"] = self._sums(model, exchanged, True)[0] - figures["decode_ce"]
                figures[f"{name}_worth_first"] = self._sums(model, exchanged, True, FIRST_CODES)[0] - begun
        return figures

    @staticmethod
    def _sums(
        model: UnifiedVoice, batches: list[GPTBatch], decoding_positions: bool, first: int | None = None
    ) -> tuple[float, float]:
        """Mean cross-entropy and share of right codes, of all or of the first ones."""
        loss = hits = count = torch.zeros((), device=batches[0].codes.device)
        for batch in batches:
            logits, _ = logits_of(model, batch, batch.codes, decoding_positions)
            targets, _ = targets_of(batch, model.config)
            logits, targets = logits[:, :first], targets[:, :first]
            real = (targets >= 0).sum()
            loss = loss + cross_entropy(logits, targets) * real
            hits = hits + (logits.argmax(-1) == targets).sum()
            count = count + real
        return float(loss / count), float(hits / count)

    @torch.no_grad()
    def speak(self, model: UnifiedVoice, params: SamplingParams, utterances: int) -> dict[str, float]:
        """Draw codes as the product does; their number over the true one, and how many never stop."""
        middle = self.batches[len(self.batches) // 2]
        rows = slice(0, utterances)
        true_length = middle.code_lengths[rows]
        limit = min(model.max_codes, params.max_mel_tokens, int(true_length.max()) * 2 + 50)
        params = SamplingParams(**{**vars(params), "max_mel_tokens": limit})
        with torch.autocast(middle.codes.device.type, enabled=False):
            prefix = model.prefix(
                model.condition(middle.prompt[rows], middle.prompt_lengths[rows]),
                emotion_of(model, middle)[rows],
                middle.text[rows],
                middle.text_lengths[rows],
                middle.length_hints[rows],
            )
            generator = torch.Generator(prefix[0].device).manual_seed(0)
            drawn = generate(EagerBackend(model), *prefix, params, generator=generator)
        ratio = torch.tensor([len(codes) for codes in drawn.codes]) / true_length.cpu()
        return {
            "length_ratio": float(ratio.mean()),
            "shortest": float(ratio.min()),
            "longest": float(ratio.max()),
            "never_stop": float(sum(drawn.hit_limit)),
        }


def _exchanged(batch: GPTBatch, name: str) -> GPTBatch:
    """The batch with the text, prompt, emotion or style of each row given to the next."""
    names = [field.name for field in fields(batch) if field.name in (name, f"{name}_lengths")]
    return replace(batch, **{name: getattr(batch, name).roll(1, 0) for name in names})


def endless(batches: GPTBatches, batch_tokens: int) -> Iterator[GPTBatch]:
    """Epoch after epoch."""
    while True:
        for targets in batches.epoch(batch_tokens):
            choice = batches.choose(targets)
            if len(choice.target):  # a target that found no prompt leaves its place to another: the shape stays
                yield batches.gather(choice.resized(len(targets)))


def open_split(split: str, options, config: ModelConfig, device: torch.device, seed: int) -> GPTBatches:
    data = SpeechData(options.data, device, split=split)  # type: ignore[arg-type]
    semantics = Semantics(options.out, device, split=split)
    if semantics.codebook_size > config.gpt.start_mel_token:
        raise ValueError(
            f"{semantics.codebook_size} codes do not fit below the start code {config.gpt.start_mel_token}"
        )
    tokens = Path(options.tokens) if options.tokens else options.data / "tokens.npz"
    return GPTBatches(data, semantics, tokens, config.gpt, device, seed, TOLD)


def main() -> None:
    options = arguments(
        __doc__, minutes=10.0, tokens="", init="", same_codec=0, batch_tokens=24576, dropout=DROPOUT, speak=0
    )
    device = device_for(options.smoke)
    torch.manual_seed(options.seed)
    config = load_model_config(options.config)
    model = UnifiedVoice(config.gpt)
    initialise(model)
    add_told_emotions(model)
    taken = begin_with(model, load_file(options.init), bool(options.same_codec)) if options.init else []
    model.to(device)
    averaged = copy.deepcopy(model).requires_grad_(False).eval()
    best = BestWeights(averaged)
    best.to(device)
    add_dropout(model.train(), options.dropout)
    guide = AttentionGuide(model)
    optimizer = torch.optim.AdamW(
        parameter_groups(model), betas=(0.9, 0.95), fused=True, capturable=device.type == "cuda"
    )
    parts = {"model": model, "averaged": averaged, "best": best}
    loop = Loop("gpt", options, parts, optimizer)
    # A resumed run draws other batches than those it has seen.
    train = open_split("train", options, config, device, options.seed + loop.step)
    heldout = HeldOut.draw(
        open_split("heldout", options, config, device, seed=0), 8 if options.smoke else HELDOUT_UTTERANCES
    )
    loop.log.info("%d utterances to train on, %d left out", len(train.usable), train.left_out)
    if not loop.step:
        for part in (model, averaged):
            if "mel_head.bias" not in taken:
                begin_with_frequencies(part.mel_head, train.code_counts())
            if "text_head.bias" not in taken:
                begin_with_frequencies(part.text_head, train.text_counts())
    take = trainable_step(TrainStep(model, optimizer, config.gpt, guide), optimizer, device, loop.log.info)
    stream = endless(train, 1500 if options.smoke else options.batch_tokens)
    evaluations = 0
    for step in loop.steps():
        batch = next(stream)
        noisy = with_noise(batch.codes, train.semantics.codebook_size)
        tensors = [getattr(batch, field.name) for field in fields(batch)]
        losses = take(*tensors, noisy, decoding_positions=bool(train.random.random() < DECODING_POSITIONS))
        average_into(averaged, model, step)
        loop.report(**losses, positions=float(batch.text.shape[0] * (batch.text.shape[1] + batch.codes.shape[1])))
        if loop.evaluation_due():
            evaluate(loop, heldout, averaged, best, worth=evaluations % WORTH_EVERY_EVALUATIONS == 0)
            evaluations += 1
    evaluate(loop, heldout, averaged, best, worth=True)
    loop.save()
    table = best.model.get_submodule(TOLD_EMOTIONS)
    delattr(best.model, TOLD_EMOTIONS)
    save_weights(options.out / "gpt.safetensors", best.model.state_dict())
    save_weights(options.out / "gpt_emotions.safetensors", table.state_dict())
    loop.log.info("exported the weights with held-out cross-entropy %.4f", float(best.cross_entropy))
    for name, params in (("plain", PLAIN_SAMPLING), ("configured", config.sampling)) if options.speak else ():
        count = 2 if options.smoke else SAMPLED_UTTERANCES
        loop.log.info("speaking, %s sampling: %s", name, listed(heldout.speak(best.model, params, count)))


def evaluate(loop: Loop, heldout: HeldOut, averaged: UnifiedVoice, best: BestWeights, *, worth: bool) -> None:
    """Log the held-out figures, and keep the weights if they are the best so far."""
    figures = heldout.score(averaged, worth)
    best.offer(averaged, figures["decode_ce"])
    loop.log.info("held out: %s", listed(figures))


def listed(figures: dict[str, float]) -> str:
    """Figures with their names, for the log."""
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


if __name__ == "__main__":
    main()
