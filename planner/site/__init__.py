"""The state of the running site and the planner's decisions from it. Pure: documents in, documents out."""
