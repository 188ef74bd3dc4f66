"""Speaks recordings again without drawing codes, to see which network loses what.

    python -m training.resynthesise --recordings DIR --what codes --out OUT
    python -m training.evaluate --audio OUT --out OUT

``DIR`` has recordings and ``clips.json``, as ``training/evaluate.py`` reads it. ``--what`` tells how much is taken from
the recording and how much from the model: ``mel`` is the vocoder alone; ``codes`` the flow with nothing but the
recording's codes, behind the prompt of the voice; ``latents`` the flow as it speaks, with the latents that the language
model has of the recording's codes and its text.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from indextts import audio, encoding
from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.types import Segment, SpeechCodes, Voice, VoicePrompt
from training.clips import Clip, read_clips, write_clips
from training.trials import HERE
from training.without_latents import muted


class Resynthesiser:
    """A recording to samples, by way of its mel or of its codes."""

    def __init__(self, engine: Engine, prompts: Path, what: str) -> None:
        self.engine, self.models, self.what = engine, engine.models, what
        self.prompts = {clip.voice: VoicePrompt.from_path(prompts / clip.file) for clip in read_clips(prompts)}

    @torch.inference_mode()
    def __call__(self, path: Path, clip: Clip) -> Tensor:
        """Samples as the vocoder gives them."""
        params = self.models.config.s2mel.preprocess_params
        wave = audio.load_prompt(path, params.sr)
        if self.what == "mel":
            return self.engine.stages.vocoder(audio.log_mel(wave, params.spect_params, params.sr))
        conditioning = self.engine.stages.conditioning
        codes, _ = self.models.semantic_codec.quantize(conditioning.semantic_embedding(audio.resample_22k_to_16k(wave)))
        voice = conditioning.voice(self.prompts[clip.voice])
        generator = torch.Generator().manual_seed(clip.seed)
        mel = self.engine.stages.s2mel([self.spoken(codes[0], clip, voice)], voice, generator)[0]
        return self.engine.stages.vocoder(mel)

    def spoken(self, codes: Tensor, clip: Clip, voice: Voice) -> SpeechCodes:
        """The codes as if the language model had drawn them."""
        gpt, tokenizer = self.models.gpt, self.engine.stages.text.tokenizer
        tokens = tokenizer.tokenize(clip.text)
        segment = Segment(0, tuple(tokens), tuple(tokenizer.ids(tokens)))
        ids = torch.tensor([segment.token_ids])
        latent = gpt.latents(voice.speaker_latents, voice.emotion_vector, ids, codes[None])[0]
        return SpeechCodes(segment, codes, latent, reached_limit=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, required=True, help="folder with clips.json")
    parser.add_argument("--what", choices=("mel", "codes", "latents"), default="latents")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model-dir", type=Path, default=Path("checkpoints"))
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts", help="folder with clips.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine.load(EngineConfig(model_dir=options.model_dir, device="cpu", qwen_emotion=False))
    if options.what == "codes":
        engine.models.s2mel.load_state_dict(muted(engine.models.s2mel.state_dict()))
    speak = Resynthesiser(engine, options.prompts, options.what)
    options.out.mkdir(parents=True, exist_ok=True)
    clips = []
    for clip in read_clips(options.recordings):
        samples = speak(options.recordings / clip.file, clip)
        clips.append(replace(clip, file=Path(clip.file).with_suffix(".wav").name, synthesis_s=0.0, warnings=()))
        encoding.write_wav(options.out / clips[-1].file, samples, engine.sample_rate_hz)
        print(f"{clip.voice}: {clip.text}", flush=True)
    write_clips(options.out, clips)


if __name__ == "__main__":
    main()
