"""python -m danlu: the same as the danlu command."""

from danlu.cli.main import main

main()
