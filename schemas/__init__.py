"""What is said on the bus: ids, topics, messages, codec, errors, settings, model definitions."""
