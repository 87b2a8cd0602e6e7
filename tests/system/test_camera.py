"""A camera at 5 real pictures a second bound to a task on two nodes: the short form of bench/camera.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from s2m3.broker.servers.launch import BrokerKind

BENCH = Path(__file__).parents[2] / "bench" / "camera.py"


@pytest.mark.short_on("embedded")
def test_a_camera_is_answered_at_the_limited_rate_with_its_newest_picture(kind: BrokerKind, tmp_path: Path) -> None:
    out = tmp_path / "camera.json"
    words = ["--seconds", "6", "--broker", kind, "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(BENCH), *words], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["published"] == 30
    # one a second, the first at once; the bridge's clock and ours may begin a second apart
    assert 1 <= found["answered"] <= found["lasted_s"] + 2
    assert found["failed"] == 0
    assert found["right"] == found["answered"]
    assert found["in_order"]
    report = found["report"]
    assert report["received"] == 30
    assert report["received"] - report["dropped"] - report["answered"] <= 2  # one under way, one that waits its turn
