"""S2M3 on MQTT: split-and-share multi-modal models on the devices you own. `from s2m3 import Client` asks."""

import structlog

from s2m3 import logs
from s2m3.client import Answer, Client, Reply
from schemas.errors import S2M3Error

__all__ = ["Answer", "Client", "Reply", "S2M3Error"]

if not structlog.is_configured():  # its default would print a line per request into the output of whoever asks
    logs.configure(verbose=False, quiet=True)
