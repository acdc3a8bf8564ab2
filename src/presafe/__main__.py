"""`python -m presafe` is `presafe`."""

from presafe.cli.main import main

main()
