"""`python migration_utils.py --database-url URL backup | validate | list | restore PATH`: see migrations/guard/runbook.py."""

import sys

from migrations.entry import start

if __name__ == "__main__":
    sys.exit(start("migrations.guard.runbook"))
