"""The doors of `s2m3 serve`: protocols of other programs, answered by requests over the bus like any requester's."""
