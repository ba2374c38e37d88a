"""Sealed secrets: only this cluster opens them, only for their key."""

import pytest

from gateway.sealing import SealBroken, Sealer, seal

SECRET = b"c" * 32


@pytest.mark.parametrize("secret_key", ["s", "s/+= ü", "x" * 900])
def test_what_was_sealed_is_opened(secret_key: str) -> None:
    sealed = seal(SECRET, "AK", secret_key)
    assert Sealer(SECRET).open("AK", sealed) == secret_key
    assert secret_key.encode() not in sealed or len(secret_key) == 1
    assert seal(SECRET, "AK", secret_key) != sealed, "a nonce is never used twice"


def test_nobody_else_opens_it() -> None:
    sealer, sealed = Sealer(SECRET), seal(SECRET, "AK", "secret")
    with pytest.raises(SealBroken, match="access key BK"):
        sealer.open("BK", sealed)
    with pytest.raises(SealBroken):
        Sealer(b"d" * 32).open("AK", sealed)


def test_no_secret_is_no_secret() -> None:
    with pytest.raises(SealBroken):
        Sealer(SECRET).open("AK", seal(SECRET, "AK", ""))


def test_not_a_bit_of_it_may_change() -> None:
    sealer, sealed = Sealer(SECRET), seal(SECRET, "AK", "secret")
    for place in range(len(sealed)):
        changed = bytes(byte ^ (1 << place % 8 if at == place else 0) for at, byte in enumerate(sealed))
        with pytest.raises(SealBroken):
            sealer.open("AK", changed)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            sealer.open("AK", sealed[:length])


def test_the_form_stays_readable() -> None:
    """What an earlier Staddle has written. If this fails, the form has changed: give it another version."""
    sealed = bytes.fromhex("01000102030405060708090a0b894c91549c15d9f2687eec7f2bd558602093ff65a53f48b8cb73")
    assert Sealer(SECRET).open("AKIDEXAMPLE", sealed) == "secret key"
