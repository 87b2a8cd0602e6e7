"""Messages between processes and their encodings: work, answers, pieces and plain requests."""
