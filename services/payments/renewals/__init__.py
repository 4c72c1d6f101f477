"""Charging subscriptions for their next period, and what to do when that fails."""
