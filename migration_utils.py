"""`python migration_utils.py --database-url URL backup | validate | list | restore PATH`: see migrations/guard/runbook.py."""

import sys

from migrations.unseen import hide_passwords

if __name__ == "__main__":
    hide_passwords()
    from migrations.guard.runbook import main

    sys.exit(main())
