"""Bindings: any MQTT topic becomes the input of a task, and the answer goes to another topic. No code, no pictures."""
