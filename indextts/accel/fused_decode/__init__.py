"""``--cuda-kernel`` for decoding: a step of the language model in kernels of our own, five a layer.

A step reads 0.95 GB of weights for a few rows, which takes an H100 0.3 ms. PyTorch's kernels need several times as
long: there are sixteen a layer, each starts from an empty GPU, and attention gives a segment's head one block however
long its cache is. Here a layer is five kernels, each of which already reads its weights while the one in front finishes
(programmatic dependent launch), and attention cuts the cache into chunks. The residual stream stays float32.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from indextts.accel.nvrtc import Kernels
from indextts.decoding import backend
from indextts.decoding.backend import DecodeStep, StepKind
from indextts.decoding.beams import BeamSearch
from indextts.decoding.sampling import Sampling
from indextts.decoding.state import Search
from indextts.errors import UnsupportedOption
from indextts.models.gpt import UnifiedVoice
from indextts.models.gpt2 import Block

SOURCE = Path(__file__).with_name("fused_decode.cu")
SEARCH_SOURCE = Path(__file__).with_name("fused_search.cu")
STORED = {torch.float16: 16, torch.bfloat16: 17}
HIDDEN = {torch.float16: 0xFC00, torch.bfloat16: 0xFF80}  # minus infinity
CAPABILITY = (8, 0)
"""The least compute capability: tensor cores that take both half precisions in products of 16 x 8 x 16."""

MAX_ROWS = 32
"""With more rows (beams times segments), a step is left to PyTorch: it has work enough for whole products."""

TILE_ROWS = 8
TILE_OUTPUTS = 16
WIDE = 2 * TILE_OUTPUTS  # outputs of a block of the widest layers
HEAD_SIZE = 64
MAX_BEAMS = 8


def cannot_fuse(model: UnifiedVoice) -> str | None:
    """Why the steps of ``model``, which is where it is to run, cannot be fused here; None if they can."""
    config, weight = model.config, model.mel_head.weight
    if model.dtype not in STORED:
        return "its weights are not in half precision"
    if torch.cuda.get_device_capability(weight.device) < CAPABILITY:
        return "the GPU has a compute capability below 8.0"
    if config.model_dim % 64 or config.model_dim // config.heads != HEAD_SIZE:
        return f"there are no kernels for {config.heads} heads of a width of {config.model_dim}"
    return None


def apply_fused_decode(model: UnifiedVoice) -> None:
    """Bring the weights of the trunk into the order that the kernels read them in; their shapes stay.

    Raises:
        UnsupportedOption: the kernels cannot be compiled or loaded here.
    """
    try:
        FusedDecodeStep.kernels(model, num_beams=1, row_tiles=1)
    except (ImportError, RuntimeError) as error:
        raise UnsupportedOption(f"--cuda-kernel: the kernels cannot be compiled here: {error}") from error
    for block in model.gpt.h:
        assert isinstance(block, Block)
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            layer.weight.data = layer.weight.data.t().contiguous().t()


class FusedDecodeStep(DecodeStep):
    """`DecodeStep` after `apply_fused_decode`. Logits are float32."""

    @staticmethod
    def kernels(model: UnifiedVoice, num_beams: int, row_tiles: int) -> Kernels:
        """The kernels for a number of beams, and of eights of rows."""
        weight, config = model.mel_head.weight, model.config
        return _kernels(weight.dtype, weight.device.index or 0, config.model_dim, config.heads, num_beams, row_tiles)

    def forward(self, codes: Tensor, position: Tensor, slot: Tensor, bias: Tensor) -> Tensor:
        """See `DecodeStep.forward`."""
        segments, beams = codes.shape
        rows = codes.numel()
        if rows > MAX_ROWS or beams > MAX_BEAMS:
            return super().forward(codes, position, slot, bias)
        model, cache = self.model, self.cache
        config, trunk = model.config, model.gpt
        width, heads = config.model_dim, config.heads
        kernels = self.kernels(model, beams, -(-rows // TILE_ROWS))
        chunks, input_outputs = -(-bias.shape[-1] // chunk_slots(rows)), TILE_OUTPUTS * input_tiles(rows)
        full, half = (partial(torch.empty, device=codes.device, dtype=dtype) for dtype in (torch.float32, model.dtype))
        x, statistics = full(rows, width), full(rows, width // TILE_OUTPUTS, 2)
        queries, mixed, normed = (half(rows, width) for _ in range(3))
        inner = half(rows, 4 * width)
        chunk_results = full(segments, heads, chunks, beams, width // heads + 2)
        counters = codes.new_zeros(segments, heads, dtype=torch.int32)
        logits = full(segments, beams, config.number_mel_codes)

        def launch(name: str, blocks: tuple[int, int, int] | int, threads: int, *arguments: Tensor | int) -> None:
            kernels.launch(name, blocks, threads, *arguments, overlaps=True)

        codes, bias = codes.contiguous(), bias if bias.stride(-1) == 1 else bias.contiguous()
        tables = model.mel_embedding.weight, model.mel_pos_embedding.emb.weight
        kernels.launch("embed", rows, 256, codes, position, *tables, x, statistics)
        for block, (keys, values) in zip(trunk.h, cache.layers(cache.capacity), strict=True):
            assert isinstance(block, Block)
            attention, mlp, norm_1, norm_2 = block.attn, block.mlp, block.ln_1, block.ln_2
            launch(
                "attention_inputs", -(-3 * width // input_outputs), 256, x, statistics, norm_1.weight, norm_1.bias,
                attention.c_attn.weight, attention.c_attn.bias, queries, keys, values, slot, rows, cache.capacity,
            )  # fmt: skip
            launch(
                "attend", (chunks, heads, segments), 128, queries, keys, values, bias, mixed, chunk_results, counters,
                slot, cache.capacity, bias.stride(0), bias.stride(1),
            )  # fmt: skip
            output = attention.c_proj.weight, attention.c_proj.bias
            launch("attention_output", width // TILE_OUTPUTS, 256, mixed, *output, x, statistics, rows)
            launch(
                "feed_forward_input", 4 * width // WIDE, 256, x, statistics, norm_2.weight, norm_2.bias,
                mlp.c_fc.weight, mlp.c_fc.bias, inner, rows,
            )  # fmt: skip
            output = mlp.c_proj.weight, mlp.c_proj.bias
            launch("feed_forward_output", width // TILE_OUTPUTS, 512, inner, *output, x, statistics, rows)
        norms = (trunk.ln_f.weight, trunk.ln_f.bias, model.final_norm.weight, model.final_norm.bias)
        launch("final_norms", rows, 256, x, *norms, normed)
        head, number = model.mel_head, config.number_mel_codes
        launch("code_logits", -(-number // WIDE), 256, normed, head.weight, head.bias, logits, rows, number)
        return logits


def show_slots(bias: Tensor, parents: Tensor | None, slot: Tensor) -> None:
    """`indextts.decoding.backend.show_slots` in one kernel."""
    segments, beams, length = bias.shape
    if beams > MAX_BEAMS or (parents is None and beams > 1):
        backend.show_slots(bias, parents, slot)
        return
    kernels = _search_kernels(bias.device.index or 0, 1, beams)
    hidden = HIDDEN[bias.dtype]
    kernels.launch(
        "show", (-(-length // 512), segments, 1), 256, bias, slot if parents is None else parents, slot,
        bias.stride(0), bias.stride(1), length, hidden,
    )  # fmt: skip


def choose_codes(search: Search, logits: Tensor) -> None:
    """`Search.choose` in two kernels, where it draws from the ``top_k`` best codes."""
    params, beams = search.params, search.params.num_beams
    limit = draw_list(beams)
    is_drawn = params.do_sample and not params.typical_sampling and 0 < params.top_k <= limit and beams <= MAX_BEAMS
    if not is_drawn or not isinstance(search, (BeamSearch, Sampling)):
        search.choose(logits)
        return
    segments, vocabulary = len(logits), logits.shape[-1]
    rows, at_least = segments * beams, 2 if beams > 1 else 1
    kernels = _search_kernels(logits.device.index or 0, vocabulary, beams)
    scores = logits.new_empty(rows, limit)
    codes, counts, undefined = (
        logits.new_empty(shape, dtype=torch.int32) for shape in ((rows, limit), (rows,), (rows,))
    )
    kernels.launch(
        "filter_row", rows, 1024, logits.contiguous(), search.seen, scores, codes, counts, undefined,
        float(params.repetition_penalty), float(params.temperature), max(params.top_k, at_least), float(params.top_p),
        at_least, search.start_code,
    )  # fmt: skip
    passed = scores, codes, counts, undefined, search.noise
    done = search.step, search.done, search.done_after, search.undefined
    if isinstance(search, BeamSearch):
        kernels.launch(
            "choose_beams", segments, 1024, *passed, search.running, search.finished, search.finished_entry,
            search.codes, search.continued, search.seen, search.trace, *done, search.trace.shape[1], search.stop_code,
            float(params.length_penalty),
        )  # fmt: skip
    else:
        kernels.launch(
            "choose_one", segments, 1024, *passed, search.codes, search.seen, search.history, *done,
            search.history.shape[1], search.stop_code,
        )  # fmt: skip


FUSED = StepKind(FusedDecodeStep, show_slots, choose_codes)
"""By our own kernels, after `apply_fused_decode`."""


def draw_list(num_beams: int) -> int:
    """How many codes of a beam can be drawn from: LIST of the source."""
    return 2048 // num_beams if num_beams > 2 else 1024


def search_definitions(vocabulary: int, num_beams: int) -> dict[str, str]:
    """What the source of the search wants to be told from outside."""
    drawn = 2 * num_beams if num_beams > 1 else 1
    return {"CODES": str(vocabulary), "BEAMS": str(num_beams), "DRAWN": str(drawn)}


@cache
def _search_kernels(device_index: int, vocabulary: int, num_beams: int) -> Kernels:
    return Kernels(SEARCH_SOURCE, search_definitions(vocabulary, num_beams), device_index)


def input_tiles(rows: int) -> int:
    """Sixteens of outputs of a block of attention's inputs: one fills the GPU better, two read the rows less often."""
    return 1 if rows <= TILE_ROWS else 2


def chunk_slots(rows: int) -> int:
    """Slots of the cache that a block attends to: many blocks for few rows, less to put together for more."""
    return 128 if rows <= TILE_ROWS else 256


def definitions(dtype: torch.dtype, width: int, heads: int, num_beams: int, row_tiles: int) -> dict[str, str]:
    """What the source wants to be told from outside."""
    numbers = {
        "WIDTH": width, "HEADS": heads, "BEAMS": num_beams, "ROW_TILES": row_tiles,
        "TILES": input_tiles(TILE_ROWS * row_tiles), "CHUNK": chunk_slots(TILE_ROWS * row_tiles),
        "STORED": STORED[dtype],
    }  # fmt: skip
    return {name: str(number) for name, number in numbers.items()}


@cache
def _kernels(
    dtype: torch.dtype, device_index: int, width: int, heads: int, num_beams: int, row_tiles: int
) -> Kernels:
    return Kernels(SOURCE, definitions(dtype, width, heads, num_beams, row_tiles), device_index)
