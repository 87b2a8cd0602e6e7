"""The data plane of an agent: steps taken off the bus, joined, batched, run, and their outputs sent on."""
