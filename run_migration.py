"""`python run_migration.py --database-url URL [--dry-run]`: see migrations/job.py."""

import sys

from migrations.unseen import hide_passwords

if __name__ == "__main__":
    hide_passwords()
    from migrations.job import main

    sys.exit(main())
