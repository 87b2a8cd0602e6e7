"""What travels between processes: work, answers, pieces, plain requests, and how they become bytes."""
