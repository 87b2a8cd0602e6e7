"""Checkpoints: their architectures, parts and sizes, from configurations and headers only; no weights, no torch."""
