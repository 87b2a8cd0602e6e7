"""The windows in which Whisper hears a long sound, as transformers' pipeline cuts it with `chunk_length_s`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import extractor_settings
from s2m3.agents.media.sounds import RATE
from s2m3.schemas.checkpoints.headers import read_json
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["Windows"]

Samples = npt.NDArray[np.float32]
_SECONDS = 30
#: The part of a window that the window before it hears too, and so for the one behind it.
_SHARED = 6


@dataclass(frozen=True)
class Windows:
    """Windows of a length in seconds; a sixth at either end is heard in two."""

    seconds: float
    rate: int = RATE

    @classmethod
    def of_checkpoint(cls, opened: CheckpointPart) -> "Windows":
        """Returns those of a checkpoint's feature extractor.

        Raises:
            ModuleFailedError: Its configuration cannot be read.
        """
        settings = extractor_settings(opened)
        return cls(settings.get("chunk_length") or _SECONDS, settings.get("sampling_rate") or RATE)

    @classmethod
    def if_joined(cls, opened: CheckpointPart) -> "Windows | None":
        """Returns those of a checkpoint whose tokenizer can join them, which is Whisper's own; None for any other.

        Raises:
            ModuleFailedError: As of_checkpoint.
        """
        path = opened.checkpoint.folder / "tokenizer_config.json"
        try:
            name = str(read_json(path).get("tokenizer_class") or "") if path.is_file() else ""
        except BadInputError as error:
            raise ModuleFailedError(error.detail) from error
        return cls.of_checkpoint(opened) if not name or name.startswith("Whisper") else None

    @property
    def samples(self) -> int:
        """Samples of one window."""
        return round(self.seconds * self.rate)

    @property
    def shared(self) -> int:
        """Samples at one end of a window that another hears too."""
        return round(self.seconds / _SHARED * self.rate)

    def cut(self, sound: Samples) -> list[Samples]:
        """Returns the windows of a sound; the last is as long as what is left."""
        step = self.samples - 2 * self.shared
        last = max(0, -(-(len(sound) - self.samples) // step))
        return [sound[at * step : at * step + self.samples] for at in range(last + 1)]

    def strides(self, tokens: Sequence[int], start: int) -> Iterator[tuple[list[int], tuple[float, float, float]]]:
        """Yields each window's tokens, and its length and what other windows hear of its two ends, seconds.

        The length of the last window is said to be that of a whole one: it changes no time.

        Args:
            tokens: Of all windows, each behind the start token; of one window, that token is not needed.
            start: The start token.
        """
        starts = [at for at, token in enumerate(tokens) if token == start] or [-1]
        shared = self.shared / self.rate
        for number, at in enumerate(starts):
            is_last = number + 1 == len(starts)
            window = tokens[at + 1 :] if is_last else tokens[at + 1 : starts[number + 1]]
            yield list(window), (self.seconds, shared if number else 0.0, 0.0 if is_last else shared)
