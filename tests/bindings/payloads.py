"""Payloads as others publish them, in the shapes their documentation gives; values are made up."""

import base64
import json
from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "s2m3" / "samples"

#: frigate/<camera>/<object>/snapshot: the bytes of a JPEG, retained.
FRIGATE_SNAPSHOT = (SAMPLES / "chelsea.jpg").read_bytes()

_OBJECT = {
    "id": "1607123955.475377-mxklsc",
    "camera": "front_door",
    "frame_time": 1607123961.837752,
    "snapshot": {"frame_time": 1607123961.837752, "box": [424, 500, 536, 712], "area": 23744, "score": 0.7890625},
    "label": "person",
    "sub_label": None,
    "top_score": 0.958984375,
    "false_positive": False,
    "start_time": 1607123955.475377,
    "end_time": None,
    "score": 0.7890625,
    "box": [424, 500, 536, 712],
    "area": 23744,
    "region": [264, 450, 667, 853],
    "current_zones": ["driveway"],
    "entered_zones": ["yard", "driveway"],
    "has_snapshot": True,
    "has_clip": False,
    "stationary": False,
    "active": True,
    "attributes": {},
}


def frigate_event(kind: str = "new", **after: object) -> bytes:
    """frigate/events: before and after of one tracked object; `type` is new, update or end."""
    return json.dumps({"type": kind, "before": _OBJECT, "after": {**_OBJECT, **after}}).encode()


#: zigbee2mqtt/<friendly name>: what a button, a contact and a climate sensor say.
ZIGBEE_BUTTON = b'{"action":"single","battery":97,"linkquality":132,"voltage":2995}'
#: It says so by itself, and after each press it says that it is released.
ZIGBEE_BATTERY = b'{"battery":96,"linkquality":128,"voltage":2995}'
ZIGBEE_CONTACT = (
    b'{"battery":100,"contact":false,"device_temperature":21,"linkquality":96,"tamper":false,"voltage":3005}'
)
ZIGBEE_CLIMATE = (
    b'{"battery":74.5,"humidity":45.61,"linkquality":87,"pressure":1003.2,"temperature":22.34,"voltage":2915}'
)


def zigbee_button(action: str | None) -> bytes:
    """What a button says when it is pressed (single, double, hold), and when it is released: "" or null."""
    return json.dumps({"action": action, "battery": 97, "linkquality": 132, "voltage": 2995}).encode()


#: A doorbell that puts its picture into JSON (ESPHome and Tasmota users do).
DOORBELL = json.dumps(
    {"device": "doorbell", "event": "ring", "image": base64.b64encode(FRIGATE_SNAPSHOT).decode(), "rssi": -61}
).encode()
