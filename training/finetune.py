"""Fine-tune the language model of a finished voice model on recordings of one speaker.

    python -m training.finetune --recordings FOLDER --model-dir checkpoints --out OUT

FOLDER has recordings (WAV, FLAC, OGG, MP3) and what is said in them: ``NAME.txt`` beside ``NAME.wav``, or
``metadata.csv`` with lines ``NAME|text``. A tenth of the texts is held out. Every recording is learnt with another one
of the same speaker as prompt, by LoRA or, with ``--full``, by all weights but those that listen to emotions, for the
tables of the eight emotions belong to them. What did best on the held-out recordings is kept.

OUT becomes a model folder like the one that it comes from (large files are linked where they can be), with
``adapter.safetensors`` beside the merged weights; ``OUT/finetuning`` has data, log and checkpoint, for ``--resume``,
and can be deleted. The adapter also changes other copies of the same model:

    python -m training.finetune --apply OUT/adapter.safetensors --model-dir checkpoints --out OTHER
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from indextts.accel import resolve_device
from indextts.checkpoints import ModelFiles, locate, read_tensors, section
from indextts.config import ModelConfig
from indextts.errors import ConfigError, IndexTTSError
from indextts.loading import Models, check_vocabulary, load_models
from indextts.models.gpt import UnifiedVoice
from indextts.text.glossary import Glossary
from indextts.text.normalizer import TextNormalizer
from indextts.text.tokenizer import TextTokenizer
from training.dataset import SpeechData
from training.extract_semantics import extract
from training.gpt_batches import GPTBatch, GPTBatches
from training.graphs import trainable_step
from training.loop import Loop
from training.lora import Adapter, parse_layers
from training.model_copy import write_model
from training.recordings import UnusableRecordings, find_recordings, read_all, write_data
from training.train_gpt import (
    DECODING_POSITIONS,
    HELDOUT_UTTERANCES,
    BestWeights,
    HeldOut,
    TrainStep,
    add_dropout,
    listed,
    open_split,
    with_noise,
)

NAME = "finetune"
ADAPTER, WORK, SETTINGS = "adapter.safetensors", "finetuning", "settings.json"
PEAK_LR = {"lora": 3e-4, "full": 5e-5}
LISTENS_TO_EMOTIONS = ("emo_", "emovec_")
EXTRACTED_S = 60.0  # of speech at a time
FIXED = ("recordings", "model_dir", "full", "rank", "alpha", "layers", "lr", "dropout", "batch_tokens", "seed")
"""The options of which a training that is resumed must have the same."""

log = logging.getLogger("training.prepare")


class Best(BestWeights):
    """The best weights so far, how good the untouched ones were, and for how many evaluations nothing was better."""

    before: Tensor
    stale: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.register_buffer("before", torch.tensor(math.nan))
        self.register_buffer("stale", torch.tensor(0))

    def offer(self, model: nn.Module, value: float) -> None:
        better = value < float(self.cross_entropy)
        super().offer(model, value)
        self.stale.fill_(0 if better else int(self.stale) + 1)
        if self.before.isnan():
            self.before.fill_(value)


def prepare(options: argparse.Namespace, work: Path, models: Models, files: ModelFiles) -> None:
    """Check the recordings, and write them with their codes and embeddings as data to train on.

    Raises:
        UnusableRecordings: some cannot be used and are not to be skipped, or there are too few.
    """
    tokenizer = TextTokenizer(
        files.bpe_model, TextNormalizer(Glossary.load(files.glossary)), **vars(models.config.text)
    )
    check_vocabulary(tokenizer.vocabulary_size, models.config, files.bpe_model)
    found, problems = find_recordings(options.recordings)
    spoken, more = read_all(found, tokenizer, models.config.gpt)
    problems += more
    for problem in problems:
        log.warning("not used: %s", problem)
    if problems and not options.skip_bad:
        shown = "; ".join(map(str, problems[:5])) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise UnusableRecordings(
            f"of the recordings and texts {len(problems)} cannot be used, and {len(spoken)} can: {shown}. "
            "Mend them, or leave them out with --skip-bad"
        )
    write_data(work, spoken, options.seed)
    device = models.device
    encoder, codec = models.semantic_encoder.to(device), models.semantic_codec.to(device)
    for split in ("train", "heldout"):
        extract(SpeechData(work, device, split), encoder, codec, work, EXTRACTED_S, options.seed)  # type: ignore[arg-type]


def trained_part(options: argparse.Namespace, model: UnifiedVoice) -> nn.Module:
    """What learns: an adapter, which hangs on the model from now on, or the model itself."""
    if not options.full:
        adapter = Adapter.beginning(model, options.rank, options.alpha, parse_layers(options.layers, len(model.gpt.h)))
        adapter.attach(model)
        return adapter
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(LISTENS_TO_EMOTIONS))
    return model


def batches_from(batches: GPTBatches, step: int, batch_tokens: int, seed: int) -> Iterator[GPTBatch]:
    """The batches from ``step`` on.

    All that is random about a step, dropout included, depends on seed and step alone: a training that was interrupted
    goes on as it would have without.
    """

    def epoch(number: int) -> list[np.ndarray]:
        batches.random = np.random.default_rng((seed, 0, number))
        return list(batches.epoch(batch_tokens))

    steps_per_epoch = len(epoch(0))
    for now in count(step):
        number, place = divmod(now, steps_per_epoch)
        targets = epoch(number)[place]
        batches.random = np.random.default_rng((seed, 1, now))
        torch.manual_seed(seed * 1_000_003 + now)
        while not len((choice := batches.choose(targets)).target):
            pass  # no prompt was found for any target: draw again
        yield batches.gather(choice.resized(len(targets)))


class FineTuning:
    """The training itself: it stops after so many steps, or when nothing gets better any more."""

    def __init__(self, options: argparse.Namespace, work: Path, model: UnifiedVoice, config: ModelConfig) -> None:
        self.options, self.model = options, model
        device = model.mel_head.weight.device
        torch.manual_seed(options.seed)
        self.trained = trained_part(options, model)
        self.best = Best(self.trained).to(device)
        add_dropout(model, options.dropout)
        weights = [parameter for parameter in self.trained.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            weights, options.lr, (0.9, 0.95), weight_decay=0.0, fused=True, capturable=device.type == "cuda"
        )
        folders = argparse.Namespace(data=work, out=work, tokens="", minutes=0.0, smoke=False, resume=options.resume)
        parts = {"trained": self.trained, "best": self.best}
        self.loop = Loop(NAME, folders, parts, optimizer, steps=options.steps)
        self.data = open_split("train", folders, config, device, options.seed)
        self.heldout = HeldOut.draw(open_split("heldout", folders, config, device, seed=0), HELDOUT_UTTERANCES)
        step = TrainStep(model, optimizer, config.gpt, None)
        self.take = trainable_step(step, optimizer, device, self.loop.log.info, graphed=False)
        self.loop.log.info(
            "%d recordings to train on, %d held out; %s of %s weights learn", len(self.data.usable),
            sum(len(batch.codes) for batch in self.heldout.batches), f"{sum(w.numel() for w in weights):,}",
            f"{sum(p.numel() for p in model.parameters()):,}",
        )  # fmt: skip

    def run(self) -> nn.Module:
        """Train; the trained part as it did best on the held-out recordings."""
        options, log, best = self.options, self.loop.log, self.best
        if best.before.isnan():
            self.evaluate()
        stream = batches_from(self.data, self.loop.step, options.batch_tokens, options.seed)
        for step in self.loop.steps():
            if step and step % options.evaluate_every == 0:
                self.evaluate()
                if best.stale >= options.patience:
                    log.info("no better for %d evaluations: that is enough", int(best.stale))
                    break
            self.learn_from(next(stream))
        else:
            self.evaluate()
        self.loop.save()
        before, after = float(best.before), float(best.cross_entropy)
        log.info("held-out cross-entropy of a code: %.4f before, %.4f after", before, after)
        if not after < before:
            log.warning("nothing was better than the model as it was: what is written speaks like it")
        return best.model

    def learn_from(self, batch: GPTBatch) -> None:
        noisy = with_noise(batch.codes, self.data.semantics.codebook_size)
        tensors = [getattr(batch, field.name) for field in fields(batch)]
        self.model.gpt.train()  # for dropout; nothing else of the model knows training
        losses = self.take(*tensors, noisy, decoding_positions=bool(self.data.random.random() < DECODING_POSITIONS))
        self.loop.report(**losses)

    def evaluate(self) -> None:
        self.model.eval()
        figures = self.heldout.score(self.model, worth=False)
        self.best.offer(self.trained, figures["decode_ce"])
        self.loop.log.info("held out, step %d: %s", self.loop.step, listed(figures))


def finetune(options: argparse.Namespace) -> None:
    """From recordings to a model folder."""
    work = options.out / WORK
    device = resolve_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config, files = locate(options.model_dir)
    parse_layers(options.layers, config.gpt.layers)
    settings = {name: str(getattr(options, name)) for name in FIXED}
    check_out(options.out, work / SETTINGS, settings if options.resume else None)
    models = load_models(config, files, device, in_main_memory=True)
    if not (work / SETTINGS).exists():
        prepare(options, work, models, files)
        (work / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")  # marks complete data
    model = models.gpt.to(device)
    del models  # the memory is needed
    best = FineTuning(options, work, model, config).run()
    if isinstance(best, Adapter):
        best.save(options.out / ADAPTER)
        apply(options.out / ADAPTER, files, options.out)
    else:
        changed = {n: p for n, p in best.named_parameters() if not n.startswith(LISTENS_TO_EMOTIONS)}
        write_model(files, options.out, changed, f"fine-tuned on {options.recordings.name} from {files.root}")
    log.info("the model is in %s", options.out)


def check_out(out: Path, settings: Path, resumed: dict[str, str] | None) -> None:
    """Whether ``out`` can be written to.

    Args:
        settings: Where those of an earlier training are.
        resumed: The settings of a training that is to go on; None for a new one.

    Raises:
        ConfigError: there is something in it, or a training with other settings.
    """
    if resumed is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"{str(out)!r} is not empty: choose a new folder, or go on with --resume")
    elif settings.exists():
        earlier = json.loads(settings.read_text(encoding="utf-8"))
        if other := [name for name, value in resumed.items() if earlier.get(name) != value]:
            shown = ", ".join(f"--{n.replace('_', '-')} {earlier.get(n)}" for n in other)
            raise ConfigError(f"the training in {str(out)!r} was begun with {shown}: resume it so")


def apply(adapter: Path, files: ModelFiles, out: Path) -> None:
    """Write a model folder whose language model has ``adapter`` merged into its weights."""
    weights = section(read_tensors(files.gpt), "model")
    changed = Adapter.load(adapter).merged(weights)
    write_model(files, out, changed, f"{files.root} with the adapter {adapter.name}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recordings", type=Path, help="folder of the speaker's recordings and their texts")
    what.add_argument("--apply", type=Path, metavar="ADAPTER", help="train nothing, merge a finished adapter")
    parser.add_argument("--model-dir", type=Path, default=Path("checkpoints"), help="the model to start from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    parser.add_argument("--full", action="store_true", help="train all weights instead of an adapter")
    parser.add_argument("--rank", type=int, default=8, help="of the changes (8)")
    parser.add_argument("--alpha", type=float, default=8.0, help="they are scaled by alpha / rank (8)")
    parser.add_argument("--layers", default="all", help="which layers have changes: all, or such as 0,4-7")
    parser.add_argument("--steps", type=int, default=60, help="at most (60)")
    parser.add_argument(
        "--lr", type=float, help=f"peak learning rate ({PEAK_LR['lora']:g}; with --full {PEAK_LR['full']:g})"
    )
    parser.add_argument("--dropout", type=float, default=0.05, help="behind attention and feed-forward (0.05)")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="in a step, padding included (2048)")
    parser.add_argument("--evaluate-every", type=int, default=10, metavar="STEPS", help="(10)")
    parser.add_argument(
        "--patience", type=int, default=4, help="stop after so many evaluations without a better one (4)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out recordings that cannot be used")
    parser.add_argument("--resume", action="store_true", help="go on with the training in --out")
    parser.add_argument("--device", help="default: the GPU, if there is one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    least = {"rank": 1, "steps": 1, "batch_tokens": 1, "evaluate_every": 1, "patience": 1, "seed": 0}
    for name, value in least.items():
        if getattr(options, name) < value:
            parser.error(f"--{name.replace('_', '-')} must be at least {value}, not {getattr(options, name)}")
    if not 0 <= options.dropout < 1:
        parser.error(f"--dropout must be from 0 to below 1, not {options.dropout:g}")
    if options.lr is None:
        options.lr = PEAK_LR["full" if options.full else "lora"]
    return options


def main() -> None:
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        if options.apply:
            check_out(options.out, options.out, None)
            apply(options.apply, locate(options.model_dir)[1], options.out)
            log.info("the model is in %s", options.out)
        else:
            finetune(options)
    except IndexTTSError as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main()
