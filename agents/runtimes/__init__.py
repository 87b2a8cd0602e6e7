"""What runs networks: torch, or ONNX Runtime in agents with or without torch; and exports from one to the other."""
