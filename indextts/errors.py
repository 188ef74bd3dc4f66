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


class UndefinedValues(SynthesisError):
    """The model computed something that is not a number. Another seed may do better."""


class InferenceTimeout(SynthesisError):
    """A run took longer than it may."""


class UnsupportedOption(IndexTTSError):
    """An option was asked for that this machine or version cannot honour."""


class Cancelled(IndexTTSError):
    """The caller asked for the run to stop."""


class QueueFull(IndexTTSError):
    """Too many requests wait already. ``retry_after_s`` estimates when there will be room."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServiceBusy(IndexTTSError):
    """The model is in use, so that what was asked for has to wait."""


class ServiceClosed(IndexTTSError):
    """The service finishes what it has accepted, and takes nothing new."""


class VoiceError(IndexTTSError):
    """A voice of the library cannot be used, stored or changed in this way."""


class VoiceNotFound(VoiceError):
    """There is no voice of this name."""


class VoiceExists(VoiceError):
    """There is a voice of this name already."""


class PresetError(IndexTTSError):
    """A preset cannot be read, stored or changed in this way."""


class ServerError(IndexTTSError):
    """A server that shall speak cannot be reached, or is not one that does."""
