"""What people would build instead of S2M3, on the same modules: servers that bench/peers.py starts and measures."""
