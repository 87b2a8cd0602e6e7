"""Parts of checkpoints that were exported: served by ONNX Runtime, with neither torch nor transformers."""
