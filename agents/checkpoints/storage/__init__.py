"""Checkpoints on this device: their folders, parts, tensors, configuration and preprocessing, and what a part is."""
