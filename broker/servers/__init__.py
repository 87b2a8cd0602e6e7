"""Brokers that we start or configure ourselves: Mosquitto, the embedded broker, access lists, the page's WebSocket."""
