"""Loyalty: how many points a customer has, and why.

Owns accounts, points lots and points transactions; hears payments; says points_changed and tier_changed.
"""
