"""What the checkpoint is (``ModelConfig``) and how to run it (``EngineConfig``).

``ModelConfig`` mirrors the released ``config.yaml`` section by section, under the same key names, so the official
file loads as it comes. Sizes that are constants in the released model (they do not stand in its file) are keys
with those constants as defaults; a smaller model sets them. ``config_file`` reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from indextts.errors import ConfigError


@dataclass(frozen=True)
class ConformerConfig:
    """A conformer encoder and the perceiver on top of it (spec 7.1, 7.2)."""

    output_size: int = 512
    linear_units: int = 2048
    attention_heads: int = 8
    num_blocks: int = 6
    perceiver_mult: int = 2
    cnn_module_kernel: int = 15
    perceiver_depth: int = 2
    perceiver_dim_head: int = 64


@dataclass(frozen=True)
class GPTConfig:
    """The text-to-code language model (spec 7)."""

    model_dim: int = 1280
    layers: int = 24
    heads: int = 20
    max_mel_tokens: int = 1815
    max_text_tokens: int = 600
    number_text_tokens: int = 12000
    number_mel_codes: int = 8194
    start_mel_token: int = 8192
    stop_mel_token: int = 8193
    start_text_token: int = 0
    stop_text_token: int = 1
    condition_num_latent: int = 32
    length_hints: bool = False  # whether the weights have learnt to speak in a given number of codes
    cond_input_dim: int = 1024
    emo_perceiver_dim: int = 1024
    condition_module: ConformerConfig = field(default_factory=ConformerConfig)
    emo_condition_module: ConformerConfig = field(
        default_factory=lambda: ConformerConfig(linear_units=1024, attention_heads=4, num_blocks=4)
    )


@dataclass(frozen=True)
class W2VBertConfig:
    """The semantic encoder (spec 5.3); names as in transformers' ``Wav2Vec2BertConfig``."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    feature_projection_input_dim: int = 160
    conv_depthwise_kernel_size: int = 31
    left_max_position_embeddings: int = 64
    right_max_position_embeddings: int = 8
    output_layer: int = 17  # the hidden state that is used; later layers are never built


@dataclass(frozen=True)
class SemanticCodecConfig:
    """The vector quantiser over semantic embeddings (spec 6)."""

    codebook_size: int = 8192
    hidden_size: int = 1024
    codebook_dim: int = 8
    vocos_dim: int = 384
    vocos_intermediate_dim: int = 2048
    vocos_num_layers: int = 12


@dataclass(frozen=True)
class SpectrogramConfig:
    """The 22.05 kHz log-mel front end (spec 5.4). ``fmax``: None or the string "None" means half the rate."""

    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    fmin: float = 0
    fmax: float | str | None = None


@dataclass(frozen=True)
class PreprocessConfig:
    sr: int = 22050
    spect_params: SpectrogramConfig = field(default_factory=SpectrogramConfig)


@dataclass(frozen=True)
class StyleEncoderConfig:
    """CAM++ (spec 10). ``dim`` is the size of the style vector."""

    dim: int = 192
    feat_dim: int = 80
    growth_rate: int = 32
    bn_size: int = 4
    init_channels: int = 128


@dataclass(frozen=True)
class LengthRegulatorConfig:
    """Semantic embeddings to mel-rate conditions (spec 9.2)."""

    channels: int = 512
    in_channels: int = 1024
    content_codebook_size: int = 2048
    sampling_ratios: tuple[int, ...] = (1, 1, 1, 1)


@dataclass(frozen=True)
class DiTConfig:
    """The flow-matching estimator's transformer (spec 9.4)."""

    hidden_dim: int = 512
    num_heads: int = 8
    depth: int = 13
    in_channels: int = 80
    content_dim: int = 512
    content_codebook_size: int = 1024


@dataclass(frozen=True)
class WaveNetConfig:
    """The convolutional head of the estimator (spec 9.4)."""

    hidden_dim: int = 512
    num_layers: int = 8
    kernel_size: int = 5
    dilation_rate: int = 1


@dataclass(frozen=True)
class S2MelConfig:
    """Speech codes to mel (spec 9).

    ``steps``, ``cfg_rate`` and ``temperature``, a factor on its noise, are the solver's; it sees ``prompt_s`` of a
    prompt.
    """

    preprocess_params: PreprocessConfig = field(default_factory=PreprocessConfig)
    style_encoder: StyleEncoderConfig = field(default_factory=StyleEncoderConfig)
    length_regulator: LengthRegulatorConfig = field(default_factory=LengthRegulatorConfig)
    DiT: DiTConfig = field(default_factory=DiTConfig)
    wavenet: WaveNetConfig = field(default_factory=WaveNetConfig)
    gpt_layer_dims: tuple[int, ...] = (1280, 256, 128, 1024)
    frames_per_code: float = 1.72
    steps: int = 25
    cfg_rate: float = 0.7
    temperature: float = 1.0
    prompt_s: float = 15.0


@dataclass(frozen=True)
class VocoderConfig:
    """BigVGAN v2 (spec 11); names as in its ``config.json``."""

    num_mels: int = 80
    upsample_rates: tuple[int, ...] = (4, 4, 2, 2, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (8, 8, 4, 4, 4, 4)
    upsample_initial_channel: int = 1536
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    use_tanh_at_final: bool = False
    use_bias_at_final: bool = False


@dataclass(frozen=True)
class SamplingParams:
    """How codes are drawn (spec 7.7). The only home of these defaults; a model's config may set its own.

    ``top_k`` 0 and ``top_p`` 1 switch the filter off. ``max_mel_tokens`` counts the stop code.
    """

    do_sample: bool = True
    top_p: float = 0.8
    top_k: int = 30
    temperature: float = 0.8
    num_beams: int = 3
    repetition_penalty: float = 10.0
    length_penalty: float = 0.0
    max_mel_tokens: int = 1500
    typical_sampling: bool = False
    typical_mass: float = 0.9

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "top_p": (0.0, 1.0), "top_k": (0, 10_000), "temperature": (0.01, 10.0), "num_beams": (1, 10),
            "repetition_penalty": (0.1, 20.0), "length_penalty": (-2.0, 2.0), "max_mel_tokens": (1, 1816),
            "typical_mass": (0.0, 1.0),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ConfigError(f"{name} must be a number from {low} to {high}, not {value!r}")
            if isinstance(low, int):
                if math.trunc(value) != value:
                    raise ConfigError(f"{name} must be a whole number, not {value!r}")
                object.__setattr__(self, name, math.trunc(value))
        for name in ("do_sample", "typical_sampling"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class TextConfig:
    """How this checkpoint wants its text.

    ``chinese`` is "characters" (released) or "pinyin"; ``english`` is "letters" (released) or, with pinyin, "phonemes".
    """

    chinese: str = "characters"
    english: str = "letters"


@dataclass(frozen=True)
class ModelConfig:
    """The whole of ``config.yaml``."""

    gpt: GPTConfig = field(default_factory=GPTConfig)
    semantic_codec: SemanticCodecConfig = field(default_factory=SemanticCodecConfig)
    s2mel: S2MelConfig = field(default_factory=S2MelConfig)
    w2v_bert: W2VBertConfig = field(default_factory=W2VBertConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    gpt_checkpoint: str = "gpt.pth"
    s2mel_checkpoint: str = "s2mel.pth"
    w2v_stat: str = "wav2vec2bert_stats.pt"
    spk_matrix: str = "feat1.pt"
    emo_matrix: str = "feat2.pt"
    emo_num: tuple[int, ...] = (3, 17, 2, 8, 4, 5, 10, 24)
    qwen_emo_path: str = "qwen0.6bemo4-merge/"
    bpe_model: str = "bpe.model"
    version: float = 2.0
    languages: tuple[str, ...] = ("zh", "en")  # that it has learnt to speak
    tidy_prompts: bool = False  # trim and level recordings of voices; the released model hears them as they are


@dataclass(frozen=True)
class EngineConfig:
    """How to run: where the model is, on what device, and which accelerations are asked for."""

    model_dir: Path = Path("checkpoints")
    config_path: Path | None = None  # default: config.yaml in the model's own folder
    device: str | None = None
    fp16: bool = False
    bf16: bool = False
    deepspeed: bool = False
    ds_config: Path | None = None
    ds_tp_size: int = 1
    cuda_kernel: bool = False
    cuda_graph: bool | None = None  # None: where DeepSpeed runs on CUDA
    compile: bool = False
    cpu_offload: bool = False
    batch_size: int = 1
    inference_timeout_s: float | None = None
    strict: bool = False
    qwen_emotion: bool = True
    voice_cache_bytes: int = 256 * 2**20  # of what is known of recordings: about 6 MB for 15 s of a voice; 0 is off

    def __post_init__(self) -> None:
        if self.fp16 and self.bf16:
            raise ConfigError("fp16 and bf16 exclude each other: choose one")
        if self.ds_config is not None and not self.deepspeed:
            raise ConfigError(f"--ds-config {self.ds_config} is for --deepspeed, which is not asked for")
        for name, least in (("batch_size", 1), ("ds_tp_size", 1), ("voice_cache_bytes", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.inference_timeout_s is not None and not 30 <= self.inference_timeout_s <= 300:
            raise ConfigError(f"the inference timeout must be 30 to 300 seconds, not {self.inference_timeout_s:g}")
