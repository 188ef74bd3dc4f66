"""A model without files: the networks at a chosen size with random weights, for measuring speed (``indextts bench``).

Random weights know no end: such a model would stop wherever chance has it. So its pace is fixed from outside. Every
segment gets the same number of codes for each token of its text (`fix_pace`), which are the characters of the text
(`CharacterTokenizer`). All else is the engine as it is: the same networks, search, accelerations and stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from indextts.accel import conversion, resolve_device
from indextts.checkpoints import BUNDLED_DIR
from indextts.config import EngineConfig, ModelConfig, SamplingParams
from indextts.config_file import load_model_config, model_config
from indextts.decoding.backend import DecodeBackend, EagerBackend
from indextts.engine import Engine
from indextts.errors import ConfigError, SynthesisError, UnsupportedOption
from indextts.loading import Convert, Models, build_networks
from indextts.models.gpt import UnifiedVoice
from indextts.models.weight_norm import fold_weight_norm
from indextts.stages.speech import SpeechStage
from indextts.text.normalizer import TextNormalizer
from indextts.text.tokenizer import TextTokenizer
from indextts.types import Conditioning, Segment, SpeechCodes, StopCallback

CODES_PER_CHARACTER = 11
"""How long the released model speaks on a Chinese character: 220 ms at 50 codes a second."""

NEVER = -1e4
"""A logit that is never drawn, yet finite, so that a search always has something to sort. Fits half precision."""


def tiny_config() -> ModelConfig:
    """Every network, as small as it goes: for tests."""
    encoder = {
        "output_size": 16, "linear_units": 16, "attention_heads": 2, "num_blocks": 1, "perceiver_dim_head": 8,
    }  # fmt: skip
    return model_config({
        "w2v_bert": {
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "conv_depthwise_kernel_size": 3, "output_layer": 1,
        },
        "semantic_codec": {
            "codebook_size": 62, "hidden_size": 32, "codebook_dim": 4, "vocos_dim": 16,
            "vocos_intermediate_dim": 16, "vocos_num_layers": 1,
        },
        "gpt": {
            "model_dim": 32, "layers": 2, "heads": 2, "max_mel_tokens": 200, "max_text_tokens": 60,
            "number_text_tokens": 50, "number_mel_codes": 64, "start_mel_token": 62, "stop_mel_token": 63,
            "condition_num_latent": 4, "cond_input_dim": 32, "emo_perceiver_dim": 16,
            "condition_module": encoder, "emo_condition_module": encoder,
        },
        "s2mel": {
            "style_encoder": {"dim": 16, "growth_rate": 4, "bn_size": 2, "init_channels": 8},
            "length_regulator": {"channels": 16, "in_channels": 32, "content_codebook_size": 1},
            "DiT": {"hidden_dim": 16, "num_heads": 2, "depth": 3, "content_dim": 16, "content_codebook_size": 1},
            "wavenet": {"hidden_dim": 16, "num_layers": 1},
            "gpt_layer_dims": [32, 16, 16, 32], "steps": 2, "prompt_s": 1.0,
        },
        "vocoder": {
            "upsample_rates": [16, 16], "upsample_kernel_sizes": [32, 32], "upsample_initial_channel": 16,
            "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]],
        },
    })  # fmt: skip


SIZES: dict[str, Callable[[], ModelConfig]] = {
    "full": ModelConfig,
    "nano": lambda: load_model_config(BUNDLED_DIR / "config.yaml"),
    "tiny": tiny_config,
}
"""What can be built: the released sizes, those of the bundled voice, those of the tests."""


def random_engine(
    config: EngineConfig, size: str, codes_per_character: int = CODES_PER_CHARACTER, seed: int = 0
) -> Engine:
    """An engine as ``Engine.load`` gives it, of random weights; emotions from text are not to be had.

    Args:
        size: One of ``SIZES``.
        codes_per_character: The length of all speech, exactly.
        seed: The same seed gives the same weights on the same kind of device.

    Raises:
        ConfigError: an unknown size, or a pace below 1.
        UnsupportedOption: as ``Engine.load`` does.
    """
    if size not in SIZES:
        raise ConfigError(f"there is no size {size!r}: choose one of {', '.join(SIZES)}")
    if codes_per_character < 1:
        raise ConfigError(f"a character needs at least 1 code, not {codes_per_character}")
    device = resolve_device(config.device)
    models = random_models(SIZES[size](), device, seed, conversion(config, device))
    tokenizer = CharacterTokenizer(TextNormalizer(), models.config.gpt.number_text_tokens)
    engine = Engine.assemble(config, None, models, tokenizer)
    speech = engine.stages.speech
    fix_pace(speech.backend, models.gpt, codes_per_character)
    engine.stages = dataclasses.replace(engine.stages, speech=PacedSpeech(speech, codes_per_character))
    return engine


def random_models(
    config: ModelConfig, device: torch.device, seed: int, convert: Convert | None = None
) -> Models:
    """The networks as their constructors initialise them, made on ``device`` without a detour, ready for inference."""

    def make_ready(name: str, net: nn.Module) -> None:
        fold_weight_norm(net).eval().requires_grad_(False)
        if convert is not None:
            convert(name, net)

    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        nets = build_networks(config, make_ready)
        rows = sum(config.emo_num)
        speakers = torch.randn(rows, config.s2mel.style_encoder.dim)
        emotions = torch.randn(rows, config.gpt.model_dim)
    for net in nets.values():
        net.to(device)
    return Models(config, device, **nets, speaker_matrix=speakers, emotion_matrix=emotions)  # type: ignore[arg-type]


class CharacterTokenizer(TextTokenizer):
    """One token for each character that is not a space: stands in for a vocabulary, which is a file."""

    def __init__(self, normalizer: Callable[[str], str], size: int) -> None:
        self.normalizer, self.size = normalizer, size
        self.chinese, self.english = "characters", "letters"

    @property
    def vocabulary_size(self) -> int:
        return self.size

    def pieces(self, text: str) -> list[str]:
        return [character for character in text if not character.isspace()]

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Any numbers but 0 and 1, which mark the start and the end of a text."""
        return [2 + ord(token) % (self.size - 2) for token in tokens]


def fix_pace(backend: DecodeBackend, model: UnifiedVoice, codes_per_token: int) -> None:
    """Make ``backend`` stop each segment after exactly ``codes_per_token`` codes for each token of its text.

    How long the text of a row is need not be told: a step sees it, as it sees the whole prefix in the cache. So this
    is a function of the step's own tensors, and may be captured in a graph like the step itself.

    Raises:
        UnsupportedOption: it is not a backend whose steps go through ``run_step``.
    """
    if not isinstance(backend, EagerBackend):
        raise UnsupportedOption(f"the pace of {type(backend).__name__} cannot be fixed")
    prefill, run_step = backend.prefill, backend.run_step
    other_rows = model.config.condition_num_latent + 5  # two of speed, start and stop of the text, start of the codes
    weight = model.mel_head.weight
    is_stop = torch.arange(model.config.number_mel_codes, device=weight.device) == backend.stop_code

    def paced_prefill(embeddings: Tensor, mask: Tensor, *, num_beams: int, max_codes: int) -> Tensor:
        logits = prefill(embeddings, mask, num_beams=num_beams, max_codes=max_codes)
        return logits.masked_fill(is_stop, NEVER)

    def paced_step(codes: Tensor, position: Tensor, slot: Tensor, bias: Tensor) -> Tensor:
        logits = run_step(codes, position, slot, bias)
        chosen = position - 1  # codes so far: the first is fed at position 2
        text_tokens = (bias == 0).sum(-1) - other_rows - chosen  # [S, B]
        is_due = chosen >= codes_per_token * text_tokens
        return logits.masked_fill(is_due[..., None] ^ is_stop, NEVER)  # first never the stop code, then nothing else

    backend.prefill, backend.run_step = paced_prefill, paced_step


class PacedSpeech(SpeechStage):
    """A speech stage that makes sure of its pace: what is measured is neither cut short nor runs on."""

    def __init__(self, stage: SpeechStage, codes_per_token: int) -> None:
        super().__init__(stage.gpt, stage.backend)
        self.codes_per_token = codes_per_token

    def longest_segment(self, sampling: SamplingParams) -> int:
        """The most text tokens whose codes there is room for. After the last code, each beam may take a step."""
        room = min(sampling.max_mel_tokens, self.backend.max_codes)
        return (room - 1 - sampling.num_beams) // self.codes_per_token

    def __call__(
        self,
        segments: Sequence[Segment],
        conditioning: Conditioning,
        sampling: SamplingParams,
        generator: torch.Generator | None,
        should_stop: StopCallback | None = None,
        length_hints: Sequence[int] | None = None,
        aligned: bool = False,
    ) -> list[SpeechCodes]:
        longest, limit = max(len(segment.token_ids) for segment in segments), self.longest_segment(sampling)
        if longest > limit:
            raise ConfigError(
                f"a segment of {longest} characters is too long at {self.codes_per_token} codes a character: "
                f"there is room for {limit}"
            )
        spoken = super().__call__(segments, conditioning, sampling, generator, should_stop, length_hints, aligned)
        for speech in spoken:
            expected = self.codes_per_token * len(speech.segment.token_ids)
            if len(speech.codes) != expected or speech.reached_limit:
                raise SynthesisError(
                    f"segment {speech.segment.index + 1} has {len(speech.codes)} codes instead of {expected}: "
                    "the pace is not kept, so this would measure something else"
                )
        return spoken
