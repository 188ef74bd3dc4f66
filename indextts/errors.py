"""Everything that can go wrong by name. A message states the offending value and what would be right."""


class IndexTTSError(Exception):
    """Base of all errors raised on purpose; anything else is a bug."""


class ConfigError(IndexTTSError):
    """A configuration file or value is malformed, unknown or contradictory."""


class CheckpointError(IndexTTSError):
    """Model files are missing, damaged, or do not fit the configured network."""


class DownloadError(CheckpointError):
    """Model files cannot be fetched: the hub is out of reach, refuses, or sends something else than it announces."""


class AudioError(IndexTTSError):
    """A recording cannot be read, or is unusable as a prompt."""


class TextError(IndexTTSError):
    """The text is empty, or nothing of it can be spoken."""


class EmotionError(IndexTTSError):
    """An emotion was described in a way that cannot be used."""


class SynthesisError(IndexTTSError):
    """The model produced nothing usable for a segment."""


class UnsupportedOption(IndexTTSError):
    """An option was asked for that this machine or version cannot honour."""


class Cancelled(IndexTTSError):
    """The caller asked for the run to stop."""
