"""The vocabulary of the bus: ids, topics, messages, codec, errors, settings, model definitions."""
