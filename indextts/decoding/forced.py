"""Teacher forcing through the very steps that decode: what a model thinks of codes that are given."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.backend import DecodeBackend
from indextts.decoding.state import Hypothesis, Search
from indextts.errors import UndefinedValues

GREEDY = SamplingParams(num_beams=1, do_sample=False)


@dataclasses.dataclass
class Forced(Search):
    """Chooses the codes that it was told. Attributes: as of `Search`, with B = 1, and

    told: ``[S, limit + 1]`` the codes to choose, stop codes behind them.
    logits: ``[S, V]`` that the model had for the code chosen last.
    """

    told: Tensor
    logits: Tensor

    @staticmethod
    def start(codes: Tensor, logits: Tensor, backend: DecodeBackend) -> Forced:
        """Before the first of ``codes [S, M]``, for which the model has ``logits [S, V]``."""
        counter = torch.zeros(len(codes), dtype=torch.long, device=codes.device)
        room = backend.max_codes + 1 - codes.shape[1]  # one shape for all lengths: one graph
        return Forced(
            GREEDY,
            backend.start_code,
            backend.stop_code,
            step=counter,
            done=counter.bool(),
            done_after=counter.clone(),
            undefined=counter.bool(),
            codes=counter[:, None].clone(),
            noise=logits[:, :0].clone(),
            told=torch.nn.functional.pad(codes, (0, room), value=backend.stop_code),
            logits=logits.clone(),
        )

    @property
    def parents(self) -> None:
        return None

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Search.candidates`. There is one, whatever the logits are."""
        code = self.told.index_select(1, self.step[:1])
        return logits[:, 0].gather(1, code), code

    def choose(self, logits: Tensor) -> None:
        """See `Search.choose`."""
        self.give_up_where_undefined(logits)
        self.logits.copy_(logits[:, 0])
        self.codes.copy_(self.candidates(logits)[1])
        self.step += 1

    def settled(self, row: int) -> Tensor:
        """See `Search.settled`."""
        return self.told[row, : int(self.step[row])]

    def hypotheses(self, rows: list[int]) -> list[Hypothesis]:
        """See `Search.hypotheses`."""
        return [Hypothesis(self.settled(row).clone(), hit_limit=True) for row in rows]


@torch.inference_mode()
def forced_logits(backend: DecodeBackend, embeddings: Tensor, mask: Tensor, codes: Tensor) -> Tensor:
    """Logits of every code behind those before it, as decoding computes them.

    Args:
        backend: The model to decode with.
        embeddings: Prefixes ``[S, P, D]``, padded on the left.
        mask: ``[S, P]``, true where a prefix is real.
        codes: ``[S, M]``, padded on the right with any valid code.

    Returns:
        float32 ``[S, M + 1, V]``: row i is for code i, and the row behind the last code for the stop code. Rows beyond
        mean nothing.

    Raises:
        UndefinedValues: logits are not finite.
    """
    logits = backend.prefill(embeddings, mask, num_beams=1, max_codes=codes.shape[1] + 1).float()
    found, search = [logits], Forced.start(codes, logits, backend)
    search.choose(logits[:, None])
    for _ in range(codes.shape[1]):
        search = backend.settle(search, None, 1)
        assert isinstance(search, Forced)
        backend.advance(search)
        found.append(search.logits.clone())
    if search.undefined.any():
        raise UndefinedValues("the language model computed undefined scores (NaN or infinity)")
    return torch.stack(found, dim=1)
