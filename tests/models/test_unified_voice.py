"""Batches of unequal texts and codes give what each row gives alone; gradients reach every weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from indextts.config import ConformerConfig, GPTConfig
from indextts.models.gpt import UnifiedVoice

CONFIG = GPTConfig(
    model_dim=32,
    layers=2,
    heads=2,
    max_mel_tokens=30,
    max_text_tokens=20,
    number_text_tokens=30,
    number_mel_codes=22,
    start_mel_token=20,
    stop_mel_token=21,
    condition_num_latent=3,
    cond_input_dim=12,
    emo_perceiver_dim=8,
    condition_module=ConformerConfig(output_size=16, linear_units=16, attention_heads=2, num_blocks=2),
    emo_condition_module=ConformerConfig(output_size=12, linear_units=16, attention_heads=2, num_blocks=1),
)
LENGTHS = {"speech": [40, 7, 21], "text": [9, 14, 2], "codes": [17, 5, 11]}


@pytest.fixture(scope="module")
def model() -> UnifiedVoice:
    torch.manual_seed(0)
    return UnifiedVoice(CONFIG).eval()


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = {f"{name}_lengths": torch.tensor(values) for name, values in LENGTHS.items()}
    return lengths | {
        "speech": torch.randn(3, 40, CONFIG.cond_input_dim, generator=generator),
        "text": torch.randint(2, 30, (3, 14), generator=generator),
        "codes": torch.randint(0, 20, (3, 17), generator=generator),
    }


def conditioning(model: UnifiedVoice, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    speech = batch["speech"], batch["speech_lengths"]
    return model.condition(*speech), model.emotion_vector(*speech)


def alone(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    cut = {f"{name}_lengths": batch[f"{name}_lengths"][row : row + 1] for name in LENGTHS}
    return cut | {name: batch[name][row : row + 1, : LENGTHS[name][row]] for name in LENGTHS}


@torch.no_grad()
def test_conditioning_does_not_see_the_padding(model: UnifiedVoice, batch: dict[str, Tensor]) -> None:
    padding = torch.arange(batch["speech"].shape[1]) >= batch["speech_lengths"][:, None]
    other = batch | {"speech": batch["speech"].masked_fill(padding[..., None], 7.0)}
    for got, want in zip(conditioning(model, other), conditioning(model, batch), strict=True):
        torch.testing.assert_close(got, want)
    longest = alone(batch, 0)
    for got, want in zip(conditioning(model, longest), conditioning(model, batch), strict=True):
        torch.testing.assert_close(got[0], want[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prefix_pads_on_the_left(model: UnifiedVoice, batch: dict[str, Tensor]) -> None:
    cond, emovec = conditioning(model, batch)
    embeddings, mask = model.prefix(cond, emovec, batch["text"], batch["text_lengths"])
    for row, length in enumerate(LENGTHS["text"]):
        single, _ = model.prefix(cond[row : row + 1], emovec[row : row + 1], alone(batch, row)["text"])
        assert mask[row].tolist() == [False] * (14 - length) + [True] * single.shape[1]
        torch.testing.assert_close(embeddings[row, 14 - length :], single[0])
        assert not embeddings[row, : 14 - length].any()


@torch.no_grad()
def test_one_voice_serves_many_texts(model: UnifiedVoice, batch: dict[str, Tensor]) -> None:
    cond, emovec = (x[:1] for x in conditioning(model, batch))
    text = batch["text"], batch["text_lengths"]
    repeated = model.prefix(cond.expand(3, -1, -1), emovec.expand(3, -1), *text)
    for got, want in zip(model.prefix(cond, emovec, *text), repeated, strict=True):
        torch.testing.assert_close(got, want)


@torch.no_grad()
def test_latents_of_a_batch_equal_its_rows(model: UnifiedVoice, batch: dict[str, Tensor]) -> None:
    cond, emovec = conditioning(model, batch)
    together = model.latents(cond, emovec, *(batch[k] for k in ("text", "codes", "text_lengths", "codes_lengths")))
    for row, length in enumerate(LENGTHS["codes"]):
        single = alone(batch, row)
        want = model.latents(cond[row : row + 1], emovec[row : row + 1], single["text"], single["codes"])
        torch.testing.assert_close(together[row, :length], want[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("decoding_positions", [False, True])
@torch.no_grad()
def test_training_logits_are_those_of_inference(
    model: UnifiedVoice, batch: dict[str, Tensor], decoding_positions: bool
) -> None:
    cond, emovec = conditioning(model, batch)
    keys = ("text", "text_lengths", "codes", "codes_lengths")
    logits, text_logits = model.training_logits(
        cond, emovec, *(batch[key] for key in keys), decoding_positions=decoding_positions
    )
    assert logits.shape == (3, 18, CONFIG.number_mel_codes)
    assert text_logits.shape == (3, 15, CONFIG.number_text_tokens + 1)
    for row, length in enumerate(LENGTHS["codes"]):
        single = alone(batch, row)
        prefix, _ = model.prefix(cond[row : row + 1], emovec[row : row + 1], single["text"])
        inputs = torch.cat((torch.tensor([[CONFIG.start_mel_token]]), single["codes"]), dim=1)
        positions = torch.tensor([0, *(n + 1 if decoding_positions else n for n in range(1, length + 1))])
        sequence = torch.cat((prefix, model.embed_codes(inputs, positions)), dim=1)
        want = model.code_logits(model.gpt(sequence))[0, prefix.shape[1] :]
        torch.testing.assert_close(logits[row, : length + 1], want, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_weight(model: UnifiedVoice, batch: dict[str, Tensor]) -> None:
    keys = ("text", "text_lengths", "codes", "codes_lengths")
    with torch.autocast("cpu", torch.bfloat16):
        logits, text_logits = model.training_logits(
            *conditioning(model, batch), *(batch[key] for key in keys), decoding_positions=True
        )
    (logits.float().logsumexp(-1).mean() + text_logits.float().logsumexp(-1).mean()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    model.zero_grad()
    assert without == []


def test_a_text_beyond_the_position_table_is_refused(model: UnifiedVoice) -> None:
    too_long = torch.full((1, CONFIG.max_text_tokens + 1), 5)
    with pytest.raises(ValueError, match=str(CONFIG.max_text_tokens)):
        model.prefix(torch.zeros(1, 3, 32), torch.zeros(1, 32), too_long)
