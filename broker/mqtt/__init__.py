"""One MQTT v5 connection: paho, reconnecting, subscriptions, acknowledged and bounded sending."""
