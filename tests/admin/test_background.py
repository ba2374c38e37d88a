"""What gateways do beside serving clients, as operators see it: lifecycles and duties."""

from typing import Any

from tests.admin.asking import ask, done
from tests.admin.running import Staddle, staddle
from tests.servers import StaddleProcess

__all__ = ["staddle"]

RULES = {"Rules": [{"ID": str(number), "Status": "Enabled", "Filter": {"Prefix": f"{number}/"}, "Expiration": {"Days": 1}}
                   for number in range(3)]}


def test_buckets_with_a_lifecycle_are_listed_in_pages(server: StaddleProcess, s3: Any) -> None:
    for name in ("ages-1", "ages-2", "ageless"):
        s3.create_bucket(Bucket=name)
    for name in ("ages-1", "ages-2"):
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration=RULES)
    found, after = [], ""
    while not found or after:
        page = done(server, "GET", "lifecycle/status", after=after, limit=1)
        found += page["buckets"]
        after = page["next"]
    assert [(each["bucket"], each["rules"]) for each in found] == [("ages-1", 3), ("ages-2", 3)]
    assert {each["state"] for each in found} <= {"waiting", "scanning", "done"}
    assert all(each["trouble"] == "" for each in found)
    assert ask(server, "GET", "lifecycle/status", {"after": "ages-1"}).code == "InvalidArgument"


def test_commands(server: StaddleProcess, staddle: Staddle, s3: Any) -> None:
    s3.create_bucket(Bucket="ages-3")
    s3.put_bucket_lifecycle_configuration(Bucket="ages-3", LifecycleConfiguration=RULES)
    assert "ages-3" in staddle("bucket", "lifecycle").out
    shown = staddle("cluster", "duties").out
    assert "gateway-1" in shown or "Nobody has a duty now" in shown
