"""Analytics: the business's numbers by day, and whether they are right.

Owns the daily tables and the facts below them; hears pricing and payments; says nothing.
"""
