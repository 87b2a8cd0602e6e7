"""What checkpoints are made of, from configurations and headers alone: no weights, no torch."""
