"""The five stages of a run: text, conditioning, speech, s2mel, vocoder. One class with one call each."""
