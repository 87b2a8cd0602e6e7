"""The gateway of a task: receives plain requests and publishes plain answers."""
