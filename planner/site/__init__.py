"""The running site as the planner knows it, and what it decides from that. Pure: documents in, documents out."""
