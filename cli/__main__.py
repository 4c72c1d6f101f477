"""`python -m cli` is `farebox`."""

from cli.main import main

main()
