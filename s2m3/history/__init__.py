"""The history: answers and pictures that the bridge keeps for the page, within a bound, on disk only if asked."""
