"""python -m danlu: the same as the danlu command."""

from danlu.cli.app import main

main()
