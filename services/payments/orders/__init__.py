"""What we ask Stripe to do: written down before it is asked, finished whatever dies in between."""
