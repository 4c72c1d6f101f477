"""The signature matrix: what each case must be answered, beside what Stripe's own library says of it."""

import hashlib
import hmac
from datetime import UTC, datetime

import orjson
import pytest
import stripe

from services.payments.gateway import SignatureRefused, verify

OLD, NEW, OTHER = "whsec_old", "whsec_new", "whsec_of_another_endpoint"
NOW = 1_780_000_000
BODY = orjson.dumps({"object": "event", "id": "evt_1", "amount": 100})
NOT_JSON = b"not json"


def mac(secret: str = NEW, at: int = NOW, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()


def header(*macs: str, at: int = NOW, scheme: str = "v1") -> str:
    return ",".join([f"t={at}", *(f"{scheme}={each}" for each in macs)])


# header, body, whether we take it, whether stripe-python does with its newest secret and no look at the age.
MATRIX = {
    "just now": (header(mac()), BODY, True, True),
    "299 s old": (header(mac(at=NOW - 299), at=NOW - 299), BODY, True, True),
    "300 s old": (header(mac(at=NOW - 300), at=NOW - 300), BODY, True, True),
    "301 s old": (header(mac(at=NOW - 301), at=NOW - 301), BODY, False, True),
    "299 s ahead": (header(mac(at=NOW + 299), at=NOW + 299), BODY, True, True),
    "301 s ahead": (header(mac(at=NOW + 301), at=NOW + 301), BODY, False, True),
    "a day ahead": (header(mac(at=NOW + 86_400), at=NOW + 86_400), BODY, False, True),
    "signed with both while rolled": (header(mac(OLD), mac(NEW)), BODY, True, True),
    "still signed with the old one": (header(mac(OLD)), BODY, True, False),
    "one of several is ours": (header(mac(OTHER), "00", mac(NEW)), BODY, True, True),
    "rolled away": (header(mac(OTHER)), BODY, False, False),
    "v0 only": (header(mac(), scheme="v0"), BODY, False, False),
    "v0 and v1": (header(mac()) + f",v0={mac(OTHER)}", BODY, True, True),
    "v2 only": (header(mac(), scheme="v2"), BODY, False, False),
    "V1 in capitals": (header(mac(), scheme="V1"), BODY, False, False),
    "upper-case hex": (header(mac().upper()), BODY, False, False),
    "cut off": (header(mac()[:-1]), BODY, False, False),
    "an altered byte": (header(mac()), BODY.replace(b"100", b"900"), False, False),
    "a byte more": (header(mac()), BODY + b"\n", False, False),
    "a byte-order mark": (header(mac()), b"\xef\xbb\xbf" + BODY, False, False),
    "another time than signed": (header(mac(at=NOW - 5)), BODY, False, False),
    "no time": (f"v1={mac()}", BODY, False, False),
    "no signature": (f"t={NOW}", BODY, False, False),
    "empty": ("", BODY, False, False),
    "signed, and not JSON": (header(mac(body=NOT_JSON)), NOT_JSON, True, True),
}


@pytest.mark.parametrize("case", MATRIX)
def test_each_signature_is_taken_or_refused(case: str) -> None:
    given, body, ours, theirs = MATRIX[case]
    assert is_taken(given, body) is ours
    assert stripe_takes(given, body) is theirs
    # We are stricter about age, and know more secrets than one; else nothing differs.
    assert ours == theirs or "ahead" in case or "301" in case or "old one" in case


def is_taken(given: str, body: bytes) -> bool:
    try:
        verify(body, given, (OLD, NEW), datetime.fromtimestamp(NOW, UTC))
    except SignatureRefused:
        return False
    return True


def stripe_takes(given: str, body: bytes) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body.decode(), given, NEW)
    except stripe.SignatureVerificationError:
        return False
    return True


@pytest.mark.parametrize("place", range(len(BODY)))
def test_no_byte_of_the_body_can_be_another(place: int) -> None:
    altered = bytearray(BODY)
    altered[place] ^= 1
    assert not is_taken(header(mac()), bytes(altered))


@pytest.mark.parametrize("place", range(64))
def test_no_digit_of_the_signature_can_be_another(place: int) -> None:
    digits = mac()
    other = "0" if digits[place] != "0" else "1"
    assert not is_taken(header(digits[:place] + other + digits[place + 1 :]), BODY)


def test_without_a_secret_nothing_is_taken() -> None:
    with pytest.raises(SignatureRefused):
        verify(BODY, header(mac()), (), datetime.fromtimestamp(NOW, UTC))
