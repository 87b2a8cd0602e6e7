"""S2M3 on MQTT: split-and-share multi-modal models on the devices you own. `from s2m3 import Client` asks."""

from s2m3.client import Answer, Client, Reply
from schemas.errors import S2M3Error

__all__ = ["Answer", "Client", "Reply", "S2M3Error"]
