"""Some hundred requests that a random number makes up, of every run anew; tests/attacks/random_requests.py makes any number."""

import random

from tests import signing
from tests.attacks.attacker import OTHER_ACCESS_KEY, OTHER_SECRET_KEY, Attacker
from tests.attacks.random_requests import ROWS, Client

REQUESTS = 250


def test_whatever_is_asked_nothing_breaks(attacker: Attacker) -> None:
    bucket = f"{attacker.bucket[1:]}-r"
    assert attacker.ask("PUT", f"/{bucket}").status == 200
    other = signing.Keys(access_key=OTHER_ACCESS_KEY, secret_key=OTHER_SECRET_KEY, region=attacker.keys.region)
    seed = random.randrange(1_000_000)
    client = Client(attacker.target, [attacker.keys, attacker.keys, other, None], [bucket, "there-is-no-such-bucket"], seed)
    faults = [fault for _ in range(REQUESTS) for fault in client.ask_one()]
    client.close()
    assert not faults, f"seed {seed}: {faults[:3]}"
    assert client.done > REQUESTS // 20, "else nothing was asked that could be done"
    assert len(client.names) > len(ROWS) // 2
