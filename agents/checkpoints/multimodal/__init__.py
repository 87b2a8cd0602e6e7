"""Vision-language checkpoints, cut at transformers' own `mm_encoder_outputs`: picture encoder, and language model."""
