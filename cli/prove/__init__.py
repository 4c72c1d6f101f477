"""`farebox payments prove`: many seeds of payments' lives, told badly, compared with what is true at Stripe."""
