"""The placement problem: cost model, greedy, local search, exact search. Pure: no I/O, and callers pass the clock."""
