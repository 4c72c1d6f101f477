"""`python run_migration.py --database-url URL [--dry-run]`: see migrations/job.py."""

import sys

from migrations.entry import start

if __name__ == "__main__":
    sys.exit(start("migrations.job"))
