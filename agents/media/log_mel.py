"""Whisper's log-mel spectrogram in numpy, as its feature extractor in transformers computes it with torch."""

import numpy as np
import numpy.typing as npt

__all__ = ["LogMel"]

Floats = npt.NDArray[np.float32]
_WINDOW, _STEP = 400, 160
#: Samples of 30 s.
_SAMPLES = 480_000
#: Least power, and how far below the loudest a power still counts, in powers of ten.
_LEAST, _RANGE = 1e-10, 8.0
#: Frames of which the spectrum is computed at once.
_FRAMES = 500


class LogMel:
    """30 s of sound at 16 kHz to (1, mels, 3000).

    Args:
        filters: Mel filters (201, mels).
    """

    def __init__(self, filters: Floats) -> None:
        self._filters = filters
        self._hann = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)

    def __call__(self, samples: Floats) -> Floats:
        """Returns the spectrogram of the first 30 s, silence behind a shorter sound."""
        whole = np.zeros(_SAMPLES, np.float32)
        whole[: len(samples)] = samples[:_SAMPLES]
        padded = np.pad(whole, _WINDOW // 2, "reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[:-1:_STEP]
        mels = [self._mels(frames[start : start + _FRAMES]) for start in range(0, len(frames), _FRAMES)]
        logs = np.log10(np.maximum(np.concatenate(mels), np.float32(_LEAST))).T
        found: Floats = (np.maximum(logs, logs.max() - _RANGE) + 4.0) / 4.0
        return np.ascontiguousarray(found[None], np.float32)

    def _mels(self, frames: Floats) -> Floats:
        spectrum = np.fft.rfft(frames * self._hann)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        found: Floats = power @ self._filters
        return found
