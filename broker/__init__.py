"""How it is said: one MQTT v5 link class, request dispatch (routing, retry, dedupe), broker launchers."""
