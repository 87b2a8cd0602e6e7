"""`python -m s2m3`: the command."""

from s2m3.cli import main

main()
