"""A stand-in for Stripe.  It is not Stripe: it says what Stripe would say, from a seed.

`play` gives the events of legal payment lives and what is true at their end; `sign` signs a body as
Stripe does; `python -m embedded.stripe_sandbox` serves Stripe's API and sends signed webhooks.
Nothing here knows the product, and the product never imports this.
"""

from embedded.stripe_sandbox.ledger import API_VERSION
from embedded.stripe_sandbox.play import LIFECYCLES, PaymentSpec, Played, play
from embedded.stripe_sandbox.signing import sign
from embedded.stripe_sandbox.truth import truth_of

__all__ = ["API_VERSION", "LIFECYCLES", "PaymentSpec", "Played", "play", "sign", "truth_of"]
