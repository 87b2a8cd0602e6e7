"""The commands of `s2m3`, a file per family."""
