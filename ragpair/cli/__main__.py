"""`python -m ragpair.cli`, where the command is not on the path."""

from ragpair.cli import main

main()
