"""The guarded run: nothing changes before lock, preflight, lint, a restore-tested backup and a rehearsal have passed."""
