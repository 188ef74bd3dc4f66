"""Every word that the page shows. A translation is another set of these; no other module holds texts."""

from __future__ import annotations

TITLE = "IndexTTS2"
SUBTITLE = "Zero-shot voice cloning with emotion control. A few seconds of a voice, any text, and it speaks."
MODEL = "Voice model: {model}"

VOICE = "Voice to speak with"
VOICE_HINT = "3 to 15 seconds of one person speaking, without music. Only use voices that you may use."
TEXT = "Text to speak"
TEXT_PLACEHOLDER = "Type or paste a text of any length …"

EMOTION = "Emotion"
MODE_VOICE = "As in the voice recording"
MODE_AUDIO = "From another recording"
MODE_VECTOR = "Mix of eight emotions"
MODE_TEXT = "From a description"
EMOTION_AUDIO = "Recording with the wanted emotion (any speaker)"
EMOTION_TEXT = "Description of the emotion"
EMOTION_TEXT_PLACEHOLDER = "For example: tired and a little disappointed"
EMOTION_TEXT_HINT = "Experimental. Empty: the emotion is read from the text to speak. Needs the Qwen emotion model."
EMOTION_WEIGHT = "Emotion weight"
EMOTION_WEIGHT_HINT = "0 keeps the emotion of the voice recording, 1 takes the wanted one in full."
EMOTION_RANDOM = "Random emotion sampling"
EMOTION_RANDOM_HINT = "Draws from many recorded examples of each emotion; livelier, but less like the voice."
EMOTION_NAMES = {
    "happy": "Happy",
    "angry": "Angry",
    "sad": "Sad",
    "afraid": "Afraid",
    "disgusted": "Disgusted",
    "melancholic": "Melancholic",
    "surprised": "Surprised",
    "calm": "Calm",
}

GENERATE = "Speak"
CANCEL = "Cancel"
RESULT = "Result"
LISTEN_LIVE = "Play while speaking"
STATUS_IDLE = "Choose a voice, type a text, and press **Speak**."
STATUS_STARTING = "Starting …"
STATUS_SEGMENT = "Segment {segment} of {segments} is ready, {duration_s:.1f} s so far …"
STATUS_DONE = (
    "**{duration_s:.1f} s** of speech in {elapsed_s:.1f} s (real-time factor {real_time_factor:.2f}), "
    "{segments} segment(s), seed **{seed}**"
)
STATUS_CANCELLED = "Cancelled."
STATUS_FAILED = "That did not work: {reason}"
PROGRESS = "{message}"
PROGRESS_SEGMENT = "{message}: segment {segment} of {segments}"

PREVIEW = "How the text will be cut"
PREVIEW_HEADERS = ["#", "Text as the model reads it", "Tokens"]

SETTINGS = "Advanced settings"
SETTINGS_TEXT = "Segments"
MAX_TOKENS = "Longest segment (tokens)"
MAX_TOKENS_HINT = "Long texts are spoken in segments. 80 to 200 works well; short ones start sooner."
SILENCE = "Pause (ms)"
SILENCE_HINT = "Silence between segments; 0 joins them directly."
SEED = "Seed"
SEED_HINT = "The same seed and settings give the same speech. Empty: a new one each time."
SEED_KEEP = "Use the last seed again"

SETTINGS_SAMPLING = "Sampling"
SAMPLING_LABELS = {
    "do_sample": ("Sample", "Off: always the most likely code; even, but flatter."),
    "temperature": ("Temperature", "Higher is livelier, lower is steadier."),
    "top_p": ("Top-p", "Draw only from the likeliest codes that together reach this probability; 1 is off."),
    "top_k": ("Top-k", "Draw only from so many of the likeliest codes; 0 is off."),
    "num_beams": ("Beams", "Hypotheses followed side by side; more is steadier and slower."),
    "repetition_penalty": ("Repetition penalty", "Above 1 discourages codes that were already used."),
    "length_penalty": ("Length penalty", "Above 0 prefers longer hypotheses, below 0 shorter ones; beams only."),
    "max_mel_tokens": ("Longest speech per segment (codes)", "50 codes are a second. Speech is cut off beyond it."),
    "typical_sampling": ("Typical sampling", "Draw codes of typical rather than of highest probability."),
    "typical_mass": ("Typical mass", "How much of the probability typical sampling keeps."),
}

EXAMPLES = "Examples"
FOOTER = "How this page is running"
FOOTER_OPTION = "Option"
FOOTER_ASKED = "Asked"
FOOTER_RUNS = "Runs"
FOOTER_WHY = "Why"

ERROR_NO_VOICE = "choose a voice first: upload a recording, or record one with the microphone"
ERROR_NO_TEXT = "type a text first: there is nothing to speak"
ERROR_NO_EMOTION_AUDIO = "choose a recording with the wanted emotion, or another way to set the emotion"
ERROR_NO_EMOTION = "all eight emotions are at 0: raise at least one, or choose another way to set the emotion"
ERROR_MODE = "the emotion mode must be one of {modes}, not {mode!r}"
ERROR_NUMBER = "{name} must be {kind}, not {value!r}"
ERROR_RANGE = "{name} must be from {low} to {high}, not {value:g}"
ERROR_UNEXPECTED = "Something went wrong inside the program ({kind}). The log of the server holds the details."

API_SYNTHESIZE = "Speak a text with the voice of a recording. Returns the WAV file and how it came about."
API_SEGMENT = "How a text will be cut into segments."
API_INFO = "The model, its limits and defaults, and what is accelerated."
