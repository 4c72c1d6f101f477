"""Pricing: what a subscription costs, since when and why.

Owns pricing_configs, subscription_cost_history, rollouts and 14 columns of public.subscriptions; hears loyalty's
points and tiers, payments' renewals and its own subscription changes (the storefront's SQL); says config_published,
subscription_changed and subscription_cost_changed.
"""
