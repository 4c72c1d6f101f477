"""`python -m cli` is `farebox`."""

from migrations.unseen import hide_passwords


def main() -> None:
    hide_passwords()
    from cli.main import main as run

    run()


if __name__ == "__main__":
    main()
