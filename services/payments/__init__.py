"""Payments: what is true of each payment now.

Owns raw stripe_events, payment_intents and their money state; hears what a subscription costs from pricing; says
payment_changed.
"""
