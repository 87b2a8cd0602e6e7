"""Whether somebody speaks in a sound: Silero's voice activity detector (MIT), its safetensors weights run by torch.

The weights come in the wheel `silero-vad` (deploy/weights.txt), of which nothing is imported.
"""

import structlog
import torch
from torch import nn
from torch.nn import functional

from s2m3.agents.modules.state_dicts import fill, read_safetensors
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.zoo.voice_activity import VoiceActivity
from s2m3.agents.zoo.wheels import wheel_file, wheel_folder

__all__ = ["load_voice_activity"]

_log = structlog.get_logger(__name__)
_WHEEL, _FILE = "silero-vad", "data/silero_vad_16k.safetensors"
#: The spectrum: step between its frames, and frequencies.
_STEP, _FREQUENCIES = 128, 129
_WIDTH = 128


class _Network(nn.Module):
    """Windows (windows, 1, 640) to the probability of speech in each. Names are the checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * _FREQUENCIES, 256, stride=_STEP, bias=False)
        self.conv1 = nn.Conv1d(_FREQUENCIES, _WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(_WIDTH, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, _WIDTH, 3, padding=1)
        self.lstm_cell = nn.LSTM(_WIDTH, _WIDTH)
        self.final_conv = nn.Conv1d(_WIDTH, 1, 1)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Returns (windows,) probabilities; the memory goes from each window to the next."""
        found = self.stft_conv(windows)
        x = (found[:, :_FREQUENCIES].square() + found[:, _FREQUENCIES:].square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = functional.relu(conv(x))
        heard, _ = self.lstm_cell(x.squeeze(-1)[:, None])
        return torch.sigmoid(self.final_conv(functional.relu(heard.squeeze(1))[..., None])).flatten()


def _network_key(key: str) -> str:
    return f"{key}_l0" if key.startswith("lstm_cell.") else key


def load_voice_activity() -> VoiceActivity | None:
    """Builds the detector; None, with a line in the log, where its wheel is not installed.

    Raises:
        ModuleFailedError: The wheel holds something else.
    """
    if wheel_folder(_WHEEL) is None:
        _log.warning("no_voice_activity", missing=f"the weight wheel {_WHEEL} (s2m3 weights)")
        return None
    weights = read_safetensors(wheel_file(_WHEEL, _FILE), lambda _: True)
    network = _Network()
    fill(network, {_network_key(key): value for key, value in weights.items()}, _WHEEL)
    return VoiceActivity(TorchNetwork(network, ["windows"], ["speech"]))
