"""Looking for what Stripe knows and we do not: events that never came, objects without events, payouts."""
