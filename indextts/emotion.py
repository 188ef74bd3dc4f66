"""Emotions: eight weights, how they become a vector of the language model, and how a text becomes weights (spec 8)."""

from __future__ import annotations

import json
import math
import random
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from indextts.errors import EmotionError

if TYPE_CHECKING:
    import torch

EMOTIONS = ("happy", "angry", "sad", "afraid", "disgusted", "melancholic", "surprised", "calm")
"""The order of every emotion vector."""

CHINESE_NAMES = ("高兴", "愤怒", "悲伤", "恐惧", "反感", "低落", "惊讶", "自然")
"""The same emotions as the text classifier names them."""

EmotionVector = tuple[float, ...]
"""Eight weights in the order of ``EMOTIONS``."""


class TextEmotion(Protocol):
    """Finds the emotions that a text expresses. ``name`` says in reports which one it is."""

    name: str

    def __call__(self, description: str) -> EmotionVector: ...


_CHINESE_NAME: dict[str, str] = dict(zip(EMOTIONS, CHINESE_NAMES, strict=True))
_BIAS = (0.9375, 0.875, 1.0, 1.0, 0.9375, 0.9375, 0.6875, 0.5625)
_LARGEST_SUM = 0.8
_LARGEST_ANSWER = 1.2

_SAD, _MELANCHOLIC = CHINESE_NAMES[2], CHINESE_NAMES[5]
_MELANCHOLIC_WORDS = ("低落", "melancholy", "melancholic", "depression", "depressed", "gloomy")
_LABEL_KEYS = ("emotion", "emotion_label", "label", "情感", "情绪")
_NAMED_NUMBER = re.compile(r'([^\s":.,]+?)"?\s*:\s*([\d.]*\d)')


def normalize_emo_vec(values: Sequence[float], apply_bias: bool = True) -> EmotionVector:
    """Tame weights set by hand: damp emotions that come out too strong, and cap the sum at 0.8.

    Only the web page's sliders go through this; the engine uses vectors as they are.
    """
    _check_length(values)
    if apply_bias:
        values = [value * bias for value, bias in zip(values, _BIAS, strict=True)]
    total = sum(values)
    factor = _LARGEST_SUM / total if total > _LARGEST_SUM else 1.0
    return tuple(value * factor for value in values)


def check_emo_vec(values: Sequence[object]) -> EmotionVector:
    """Weights that are to be used as they are: eight numbers, each 0 to 1, together at most 0.8 (spec 17).

    Raises:
        EmotionError: they are something else.
    """
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) != len(EMOTIONS) or len(values) != len(EMOTIONS):
        raise EmotionError(f"an emotion vector is {len(EMOTIONS)} numbers, not {str(values)[:80]}")
    if not all(0 <= value <= 1 for value in numbers):
        raise EmotionError(f"every emotion value must be from 0 to 1: {str(values)[:200]}")
    if sum(numbers) > _LARGEST_SUM + 1e-9:
        raise EmotionError(f"the emotion values must add up to at most {_LARGEST_SUM}, not {sum(numbers):g}")
    return tuple(map(float, numbers))


def scale_emo_vector(values: Sequence[float], alpha: float) -> EmotionVector:
    """Scale weights by ``alpha``, clamped to 0..1; scaled ones are cut off (not rounded) after four decimals."""
    _check_length(values)
    scale = min(max(alpha, 0.0), 1.0)
    if scale == 1.0:
        return tuple(values)
    return tuple(int(value * scale * 10_000) / 10_000 for value in values)


class EmotionTables:
    """The model's stock of emotional deliveries, by emotion and by the speaker who gave them.

    Args:
        emotions: emotion vectors ``[R, model_dim]``, the emotions' rows one after the other.
        speakers: style vectors ``[R, S]`` of who spoke each row.
        rows: number of rows of each emotion.

    Raises:
        EmotionError: the matrices do not have the rows that are announced.
    """

    def __init__(self, emotions: torch.Tensor, speakers: torch.Tensor, rows: Sequence[int]) -> None:
        if len(rows) != len(EMOTIONS) or min(rows) < 1 or not len(emotions) == len(speakers) == sum(rows):
            raise EmotionError(
                f"the emotion matrices have {len(emotions)} and {len(speakers)} rows; {list(rows)} are needed"
            )
        self._emotions = emotions.split(list(rows))
        self._speakers = speakers.split(list(rows))

    def select(self, style: torch.Tensor, rng: random.Random | None = None) -> list[int]:
        """One row of each emotion: the speaker most like ``style`` ``[1, S]``, or any one drawn from ``rng``."""
        import torch

        if rng is not None:
            return [rng.randint(0, len(rows) - 1) for rows in self._speakers]
        return [int(torch.cosine_similarity(style, rows, dim=1).argmax()) for rows in self._speakers]

    def weighted_sum(
        self, weights: Sequence[float], style: torch.Tensor, rng: random.Random | None = None
    ) -> torch.Tensor:
        """The weighted sum ``[1, model_dim]`` of the selected deliveries."""
        import torch

        _check_length(weights)
        rows = torch.stack([group[i] for group, i in zip(self._emotions, self.select(style, rng), strict=True)])
        return (rows.new_tensor(weights)[:, None] * rows).sum(dim=0, keepdim=True)

    def mix(
        self,
        weights: Sequence[float],
        style: torch.Tensor,
        voice_emotion: torch.Tensor,
        rng: random.Random | None = None,
    ) -> torch.Tensor:
        """The emotion vector ``[1, model_dim]`` to speak with: the mix, and the voice's own for the rest.

        Args:
            weights: eight weights; with a sum above 1 the voice's own emotion is subtracted.
            style: style vector ``[1, S]`` of the voice.
            voice_emotion: emotion vector ``[1, model_dim]`` of the voice's recording.
            rng: draws the rows at random if given.
        """
        return self.weighted_sum(weights, style, rng) + (1 - sum(weights)) * voice_emotion


class QwenEmotion:
    """Finds the emotions of a text with the fine-tuned Qwen3 model of the checkpoint.

    Decoding is greedy, so a text always has the same emotions (the released code may sample here). The model is
    loaded at the first call, in half precision on CUDA, and is used by one thread at a time.

    Args:
        directory: the model's folder, ``qwen_emo_path`` of the checkpoint.
        device: where to run it.
    """

    name = "qwen"
    TASK = "文本情感分类"
    MAX_NEW_TOKENS = 256  # an answer of all eight emotions takes about 80
    END_OF_THINKING_ID = 151668

    def __init__(self, directory: str | Path, device: str | torch.device = "cpu") -> None:
        self.directory = Path(directory)
        self.device = device
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    @property
    def available(self) -> bool:
        """Whether the model's folder is there."""
        return (self.directory / "config.json").is_file()

    def __call__(self, description: str) -> EmotionVector:
        """The eight weights of ``description``, each in 0..1.2.

        Raises:
            EmotionError: the model is missing or damaged, or its answer cannot be understood.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            tokenizer, model = self._loaded
            return parse_answer(self._answer(tokenizer, model, description), description)

    def _load(self) -> tuple[Any, Any]:
        if not self.available:
            raise EmotionError(
                f"emotions from text need the Qwen model in {self.directory}, which is not there: "
                "download the released model, or describe the emotion by a vector or a recording"
            )
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        dtype = torch.float16 if torch.device(self.device).type == "cuda" else torch.float32
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.directory, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(self.directory, local_files_only=True, dtype=dtype)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EmotionError(f"cannot load the emotion model in {self.directory}: {error}") from error
        model.to(self.device)  # type: ignore[arg-type]  # its decorator hides the signature
        return tokenizer, model.eval()

    def _answer(self, tokenizer: Any, model: Any, description: str) -> str:
        import torch

        messages = [{"role": "system", "content": self.TASK}, {"role": "user", "content": description}]
        prompt = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        inputs = tokenizer([prompt], return_tensors="pt", return_token_type_ids=False).to(self.device)
        with torch.inference_mode():
            output = model.generate(
                **inputs, max_new_tokens=self.MAX_NEW_TOKENS, pad_token_id=tokenizer.eos_token_id,
                do_sample=False, temperature=None, top_p=None, top_k=None,
            )  # fmt: skip
        ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        if self.END_OF_THINKING_ID in ids:
            ids = ids[len(ids) - ids[::-1].index(self.END_OF_THINKING_ID) :]
        return tokenizer.decode(ids, skip_special_tokens=True)


def parse_answer(answer: str, description: str) -> EmotionVector:
    """Read the classifier's answer, usually ``{"高兴": 0.8, …}`` (spec 8.5).

    Answers with a label in place of numbers count as 1.0 for that emotion, and an answer without any emotion is
    calm. As the classifier takes low spirits for sadness, the two are exchanged if ``description`` names the former.

    Raises:
        EmotionError: an emotion's value is not a number.
    """
    try:
        content = json.loads(answer)
    except json.JSONDecodeError:
        content = dict(_NAMED_NUMBER.findall(answer))
    if isinstance(content, dict) and any(word in description.lower() for word in _MELANCHOLIC_WORDS):
        content = {**content, _SAD: content.get(_MELANCHOLIC, 0), _MELANCHOLIC: content.get(_SAD, 0)}
    values = _resolve_labels(content)
    vector = tuple(min(max(_number(name, values.get(name, 0)), 0.0), _LARGEST_ANSWER) for name in CHINESE_NAMES)
    return vector if any(vector) else tuple(float(name == "calm") for name in EMOTIONS)


def _resolve_labels(content: object) -> dict[str, Any]:
    """The answer as values by Chinese name: labels become 1.0 for the emotion they name."""
    values: dict[str, Any] = dict(content) if isinstance(content, dict) else {}
    labels = [content, *(values.get(key) for key in _LABEL_KEYS)]
    named = next(filter(None, map(_label, labels)), None)
    if named and not any(name in values for name in CHINESE_NAMES):
        values[named] = 1.0
    for name in CHINESE_NAMES:
        label = _label(values.get(name))
        if label:
            values[name] = 0.0
            values[label] = 1.0
    return values


def _label(value: object) -> str | None:
    """The Chinese name of the emotion that ``value`` names, if it does."""
    if not isinstance(value, str):
        return None
    word = value.strip()
    if word in CHINESE_NAMES:
        return word
    return _CHINESE_NAME.get(word.lower())


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise EmotionError(f"the emotion model answered {value!r} for {name}; a number was expected")
    return number


def _check_length(values: Sequence[float]) -> None:
    if len(values) != len(EMOTIONS):
        raise EmotionError(f"an emotion vector has {len(EMOTIONS)} values ({', '.join(EMOTIONS)}), not {len(values)}")
