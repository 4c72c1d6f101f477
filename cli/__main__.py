"""`python -m cli` is `farebox`."""

import sys

from migrations.entry import start


def main() -> None:
    sys.exit(start("cli.main"))


if __name__ == "__main__":
    main()
