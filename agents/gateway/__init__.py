"""The gateway of a task: plain requests in, plain answers out."""
