"""An agent with torch needs neither of ONNX's packages: they are extras."""

import subprocess
import sys

_LOADS = """
import sys
sys.modules["onnx"] = sys.modules["onnxruntime"] = None  # an import of either one raises ImportError
from s2m3.agents.registry import can_load, load
from s2m3.schemas.definitions import shipped_catalogue
modules = shipped_catalogue().modules
for name in ("efficientnet-lite0", "imagenet-linear", "minilm", "whisper-tiny-en-encoder", "whisper-tiny-en-decoder"):
    assert can_load(modules[name]), name
    load(modules[name])
print("loaded")
"""


def test_the_shipped_modules_load_without_onnx() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADS], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["loaded"], done.stderr[-2000:]
