"""Opaque ids in Stripe's form, from a seed; nothing about them says which came first."""

from random import Random

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Stripe's own are 24 characters after the prefix at present.
LENGTH = 24


class Ids:
    """Ids that never repeat, even when one seed is played twice into one ledger."""

    def __init__(self, seed: str) -> None:
        self.rng = Random(seed)
        self.taken: set[str] = set()

    def reseed(self, seed: str) -> None:
        self.rng = Random(seed)

    def new(self, prefix: str) -> str:
        while True:
            candidate = f"{prefix}_" + "".join(self.rng.choices(ALPHABET, k=LENGTH))
            if candidate not in self.taken:
                self.taken.add(candidate)
                return candidate
