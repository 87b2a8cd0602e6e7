"""The doors of `s2m3 serve`: other programs' protocols, each answered by requests over the bus like any requester's."""
