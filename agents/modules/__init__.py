"""What module classes are built from, the shipped ones and those of checkpoints: ports, weights, rankings, decoding."""
