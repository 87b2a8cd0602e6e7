"""The placement problem: cost model, greedy, local search, exact search. Pure: no bus, no clock of its own."""
