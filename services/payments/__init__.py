"""Payments: what is true of each payment now.

Owns raw stripe_events, payment_intents and their money state, orders to Stripe and renewals; hears from pricing how
subscriptions live and what they cost; says payment_changed and renewal_changed.
"""
