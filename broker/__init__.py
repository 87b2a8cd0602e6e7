"""Communication over MQTT: one link class for v5, request dispatch (routing, retry, dedupe), broker launchers."""
