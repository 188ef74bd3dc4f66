"""``indextts download``: says which files to fetch and where they belong."""

from __future__ import annotations

import argparse

from indextts.cli.output import fail, say

MODEL_REPOSITORY = "IndexTeam/IndexTTS-2"
# Repository, file in it ("*": all files), place below the model folder (spec 2.1, 2.2).
FILES = (
    (MODEL_REPOSITORY, "*", ""),
    ("facebook/w2v-bert-2.0", "*", "hf_cache/w2v-bert-2.0/"),
    ("amphion/MaskGCT", "semantic_codec/model.safetensors", "hf_cache/semantic_codec_model.safetensors"),
    ("funasr/campplus", "campplus_cn_common.bin", "hf_cache/campplus_cn_common.bin"),
    ("nvidia/bigvgan_v2_22khz_80band_256x", "config.json", "hf_cache/bigvgan/config.json"),
    ("nvidia/bigvgan_v2_22khz_80band_256x", "bigvgan_generator.pt", "hf_cache/bigvgan/bigvgan_generator.pt"),
)
EXIT_NOT_AVAILABLE = 3


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("download", help="how to get the official model files")
    parser.add_argument("--model-dir", default="checkpoints", metavar="DIR", help="where they shall go (checkpoints)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List the files; ends with an error, for nothing is fetched."""
    folder = args.model_dir.rstrip("/")
    say("Fetch these files from huggingface.co (or modelscope.cn) and put them here:")
    for repository, name, place in FILES:
        what = "all files" if name == "*" else name
        say(f"  {repository}: {what} -> {folder}/{place}")
    return fail(
        f"automatic download is not part of this version: fetch {MODEL_REPOSITORY} into {folder}/ and the "
        f"auxiliary models into {folder}/hf_cache/ as listed",
        EXIT_NOT_AVAILABLE,
    )
