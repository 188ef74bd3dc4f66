"""The text-to-code language model, "UnifiedVoice" (spec 7).

Everything the model hears and reads becomes one sequence of embeddings:

    [ speaker latents + emotion vector | 2 speed rows | <start> text <stop> | <start> codes <stop> ]

The same sequence is used three ways. `prefix` builds the part before the codes, from which decoding continues
one code at a time (`embed_codes`, `gpt`, `code_logits`). `latents` runs over finished codes and returns the
hidden state in front of each, which the next network listens to. `training_logits` is teacher forcing.

Decoding numbers the positions of the codes 0, 2, 3, 4, ... and `latents` numbers them 0, 1, 2, 3, ... The
released weights are used this way, so both stay (spec quirk 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from indextts.config import ConformerConfig, GPTConfig
from indextts.models.conformer import ConformerEncoder, length_mask
from indextts.models.gpt2 import GPT2, Watch
from indextts.models.perceiver import PerceiverResampler

WatchText = Callable[[Tensor], None]
"""Is shown how the codes look at the text, layer by layer: ``[B, heads, M, L + 2]``, see `UnifiedVoice.latents`."""


class LearnedPositions(nn.Module):
    """A table of position embeddings."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(size, width)

    def forward(self, positions: Tensor) -> Tensor:
        return self.emb(positions)


class UnifiedVoice(nn.Module):
    """Speaker and emotion encoders, text and code embeddings, GPT-2 trunk, heads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.model_dim
        self.config = config
        speaker, emotion = config.condition_module, config.emo_condition_module
        self.conditioning_encoder = ConformerEncoder(config.cond_input_dim, speaker)
        self.perceiver_encoder = _perceiver(width, config.condition_num_latent, speaker)
        self.emo_conditioning_encoder = ConformerEncoder(config.cond_input_dim, emotion)
        self.emo_perceiver_encoder = _perceiver(config.emo_perceiver_dim, 1, emotion)
        self.emovec_layer = nn.Linear(config.emo_perceiver_dim, width)
        self.emo_layer = nn.Linear(width, width)
        self.speed_emb = nn.Embedding(2, width)
        self.text_embedding = nn.Embedding(config.number_text_tokens + 1, width)
        self.text_pos_embedding = LearnedPositions(config.max_text_tokens + 2, width)
        self.mel_embedding = nn.Embedding(config.number_mel_codes, width)
        self.mel_pos_embedding = LearnedPositions(config.max_mel_tokens + 3, width)
        self.gpt = GPT2(width, config.layers, config.heads)
        self.final_norm = nn.LayerNorm(width)
        self.text_head = nn.Linear(width, config.number_text_tokens + 1)
        self.mel_head = nn.Linear(width, config.number_mel_codes)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the weights are in."""
        return self.mel_head.weight.dtype

    @property
    def max_codes(self) -> int:
        """The most codes one segment can have, the stop code included: the position table ends there."""
        return self.config.max_mel_tokens + 1

    def condition(self, embedding: Tensor, lengths: Tensor) -> Tensor:
        """Speaker latents ``[B, N, D]`` of a prompt ``[B, T, cond_input_dim]`` with ``lengths [B]``."""
        return self.perceiver_encoder(*self.conditioning_encoder(embedding, lengths))

    def emotion_vector(self, embedding: Tensor, lengths: Tensor) -> Tensor:
        """Emotion vector ``[B, D]`` of a recording ``[B, T, cond_input_dim]``, ``lengths [B]``."""
        latent = self.emo_perceiver_encoder(*self.emo_conditioning_encoder(embedding, lengths))
        return self.emo_layer(self.emovec_layer(latent[:, 0]))

    @staticmethod
    def merge_emotion(base: Tensor, emotion: Tensor, alpha: float | Tensor) -> Tensor:
        """Go from the speaker's emotion vector ``base`` towards ``emotion`` by ``alpha`` (1: all the way)."""
        return base + alpha * (emotion - base)

    def prefix(
        self,
        cond: Tensor,
        emovec: Tensor,
        text_ids: Tensor,
        text_lengths: Tensor | None = None,
        length_hints: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings that decoding starts from (spec 7.5).

        Args:
            cond: Speaker latents ``[B or 1, N, D]``.
            emovec: Emotion vectors ``[B or 1, D]``.
            text_ids: ``[B, L]``, padded on the right. Start and stop ids among them are removed.
            text_lengths: ``[B]``; None means that no row is padded.
            length_hints: ``[B]``, how many codes to speak in, 0 where that is free; None means free for all.

        Returns:
            ``[B, N + 2 + L + 2, D]``, shorter rows padded with zeros on the left, and the mask of what
            is real.
        """
        valid = self._valid(text_ids, text_lengths)
        keep = valid & (text_ids != self.config.start_text_token) & (text_ids != self.config.stop_text_token)
        text, text_keep = self._text(text_ids, keep)
        conds = self._conds(cond, emovec, len(text_ids), length_hints)
        embeddings, keep = torch.cat((conds, text), dim=1), _prepend_true(text_keep, conds.shape[1])
        order = keep.long().argsort(dim=1, stable=True)  # what is dropped moves to the front
        mask = keep.gather(1, order)
        return _take(embeddings, order) * mask[..., None], mask

    def embed_codes(self, codes: Tensor, positions: Tensor) -> Tensor:
        """``codes [..., n]`` at ``positions [n]`` to embeddings ``[..., n, D]``."""
        return self.mel_embedding(codes) + self.mel_pos_embedding(positions)

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Output of the trunk ``[..., D]`` to logits over codes ``[..., number_mel_codes]``."""
        return self.mel_head(self.final_norm(hidden))

    def latents(
        self,
        cond: Tensor,
        emovec: Tensor,
        text_ids: Tensor,
        codes: Tensor,
        text_lengths: Tensor | None = None,
        code_lengths: Tensor | None = None,
        length_hints: Tensor | None = None,
        watch: WatchText | None = None,
    ) -> Tensor:
        """Second pass (spec 7.10): the state in front of each code, ``[B, M, D]``.

        Args:
            cond, emovec, text_ids, text_lengths, length_hints: As for `prefix`, but no id is removed from the text.
            codes: ``[B, M]`` without the stop code, padded on the right with any valid code.
            code_lengths: ``[B]``; None means that no row is padded. Rows of the result beyond mean nothing.
            watch: Is shown by each layer the attention of each code on start, text and stop ``[B, heads, M, L + 2]``,
                of which each row adds up to one: what it pays to all else is left out. Zeros stand behind the stop of
                a shorter text; rows beyond ``code_lengths`` mean nothing. Changes no result.
        """
        # Attention is causal: the last code and the stop code change no row that is kept, and are not fed.
        start = torch.full_like(codes[:, :1], self.config.start_mel_token)
        inputs = torch.cat((start, codes[:, :-1]), dim=1)
        positions = torch.arange(inputs.shape[1], device=codes.device)
        _, hidden = self._teacher_forced(
            cond, emovec, text_ids, text_lengths, inputs, code_lengths, positions, length_hints, watch
        )
        return self.final_norm(hidden)

    def training_logits(
        self,
        cond: Tensor,
        emovec: Tensor,
        text_ids: Tensor,
        text_lengths: Tensor,
        codes: Tensor,
        code_lengths: Tensor,
        length_hints: Tensor | None = None,
        *,
        decoding_positions: bool,
    ) -> tuple[Tensor, Tensor]:
        """Teacher forcing over a padded batch.

        Args:
            cond, emovec, text_ids, text_lengths, codes, code_lengths, length_hints: As for `latents`.
            decoding_positions: Number the codes as decoding does (0, 2, 3, ...) instead of as `latents` does.

        Returns:
            Code logits ``[B, M + 1, number_mel_codes]``: row i predicts code i, and row ``code_lengths`` the
            stop code. Text logits ``[B, L + 1, number_text_tokens + 1]``, aligned to the text likewise.
        """
        start = torch.full_like(codes[:, :1], self.config.start_mel_token)
        inputs = torch.cat((start, codes), dim=1)
        positions = torch.arange(inputs.shape[1], device=codes.device)
        if decoding_positions:
            positions = positions + (positions > 0)
        text_hidden, code_hidden = self._teacher_forced(
            cond, emovec, text_ids, text_lengths, inputs, code_lengths + 1, positions, length_hints
        )
        return self.code_logits(code_hidden), self.text_head(self.final_norm(text_hidden))

    def _teacher_forced(
        self,
        cond: Tensor,
        emovec: Tensor,
        text_ids: Tensor,
        text_lengths: Tensor | None,
        code_inputs: Tensor,
        code_lengths: Tensor | None,
        code_positions: Tensor,
        length_hints: Tensor | None,
        watch: WatchText | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Trunk output over start id and text ``[B, L + 1, D]``, and over ``code_inputs`` ``[B, n, D]``."""
        text_valid = self._valid(text_ids, text_lengths)
        text, text_keep = self._text(text_ids, text_valid)
        conds = self._conds(cond, emovec, len(text_ids), length_hints)
        embeddings = torch.cat((conds, text, self.embed_codes(code_inputs, code_positions)), dim=1)
        code_valid = self._valid(code_inputs, code_lengths)
        keep = torch.cat((_prepend_true(text_keep, conds.shape[1]), code_valid), dim=1)
        # Rows are closed up, padding last: causal attention needs no mask, and a batch equals its rows alone.
        order = (~keep).long().argsort(dim=1, stable=True)
        if watch is None:
            hidden = self.gpt(_take(embeddings, order))
        else:
            shown = _attention_on_text(watch, conds.shape[1], text_keep, code_inputs.shape[1])
            hidden = self.gpt(_take(embeddings, order), watch=shown)
        back = order.argsort(dim=1)
        text_end = conds.shape[1] + text_ids.shape[1] + 1
        return _take(hidden, back[:, conds.shape[1] : text_end]), _take(hidden, back[:, text_end + 1 :])

    def _conds(self, cond: Tensor, emovec: Tensor, batch: int, length_hints: Tensor | None) -> Tensor:
        """``[B, N + 2, D]``: latents with the emotion added, then the two speed rows, second one first.

        A hint is the position of the last code, added to the last row: the paper ties the two tables likewise.
        """
        speed = self.speed_emb.weight.flip(0).to(cond.dtype).expand(batch, -1, -1)
        if length_hints is not None:
            last = self.mel_pos_embedding(length_hints) * (length_hints > 0)[:, None]
            speed = torch.stack((speed[:, 0], speed[:, 1] + last.to(speed.dtype)), dim=1)
        conds = cond + emovec[:, None]
        return torch.cat((conds.expand(batch, -1, -1), speed), dim=1)

    def _text(self, text_ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of start, ids, stop ``[B, L + 2, D]`` and which to keep; positions count kept ids."""
        limit = self.config.max_text_tokens
        if text_ids.shape[1] > limit:
            raise ValueError(f"{text_ids.shape[1]} text tokens, but the model has positions for {limit}")
        edges = torch.full_like(text_ids[:, :1], self.config.start_text_token)
        ids = torch.cat((edges, text_ids, torch.full_like(edges, self.config.stop_text_token)), dim=1)
        keep = F.pad(keep, (1, 1), value=True)
        return self.text_embedding(ids) + self.text_pos_embedding(keep.long().cumsum(1) - 1), keep

    @staticmethod
    def _valid(ids: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return torch.ones_like(ids, dtype=torch.bool)
        return length_mask(lengths, ids.shape[1])


def _attention_on_text(watch: WatchText, first: int, text_keep: Tensor, codes: int) -> Watch:
    """What ``watch`` is shown of rows that are closed up: the text, ``text_keep [B, L + 2]``, begins at ``first``."""
    counts = text_keep.sum(1)
    beyond = torch.arange(text_keep.shape[1], device=counts.device) >= counts[:, None]
    rows = first + counts[:, None] + torch.arange(codes, device=counts.device)  # within the sequence, as counts are

    def show(queries: Tensor, keys: Tensor) -> None:
        _, heads, _, size = queries.shape
        own = queries.gather(2, rows[:, None, :, None].expand(-1, heads, -1, size))
        text = keys[:, :, first : first + text_keep.shape[1]]
        scores = own.float() @ text.float().transpose(2, 3) / math.sqrt(size)
        watch(scores.masked_fill(beyond[:, None, None], -math.inf).softmax(-1))

    return show


def _perceiver(dim: int, num_latents: int, config: ConformerConfig) -> PerceiverResampler:
    return PerceiverResampler(
        dim,
        config.output_size,
        num_latents,
        config.attention_heads,
        config.perceiver_dim_head,
        config.perceiver_mult,
        config.perceiver_depth,
    )


def _prepend_true(mask: Tensor, count: int) -> Tensor:
    return F.pad(mask, (count, 0), value=True)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``index [B, n]`` of ``x [B, T, D]``."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
