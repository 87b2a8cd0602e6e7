"""Whether somebody speaks in a sound, by a network that gives each 32 ms a probability (voice.py has torch's)."""

import numpy as np
import numpy.typing as npt

from s2m3.agents.runtimes.network import Network

__all__ = ["VoiceActivity"]

#: Samples of one window (32 ms at 16 kHz), those of the window before it that it hears too, and its reflected end.
_WINDOW, _BEFORE, _REFLECTED = 512, 64, 64
#: Speech is where the mean over so many windows (96 ms) is above the threshold. Measured: "yes", "nein" 0.99 and more;
#: silence, noise, hum, knocks, chords, bells 0.26 and less.
_RUN, _THRESHOLD = 3, 0.5


class VoiceActivity:
    """Tells speech from other sound."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nbytes = network.nbytes

    def probabilities(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Returns the probability of speech in each 32 ms of mono samples at 16 kHz."""
        count = max(1, -(-len(samples) // _WINDOW))
        padded = np.zeros(_BEFORE + count * _WINDOW, np.float32)
        padded[_BEFORE : _BEFORE + len(samples)] = samples
        windows = np.lib.stride_tricks.sliding_window_view(padded, _BEFORE + _WINDOW)[::_WINDOW].copy()
        heard = np.pad(windows, ((0, 0), (0, _REFLECTED)), "reflect")
        found: npt.NDArray[np.float32] = self.network(windows=heard[:, None])[0]
        return found

    def is_speech(self, samples: npt.NDArray[np.float32]) -> bool:
        """Returns whether somebody speaks for about a tenth of a second or longer."""
        found = self.probabilities(samples)
        run = min(_RUN, len(found))
        return bool(np.convolve(found, np.ones(run) / run, "valid").max() > _THRESHOLD)
