"""Brokers that this package starts or configures: Mosquitto, the embedded one, access lists, the page's WebSocket."""
