"""Parts of checkpoints that travel: the cache on disk, and how a node gets a part from others."""
