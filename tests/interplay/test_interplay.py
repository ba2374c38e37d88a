"""Every row of the table on a whole server, and the printed page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.shell import Target
from tests.clients.wire import Wire
from tests.interplay.asking import Asker, Inbox, configuration
from tests.interplay.table import Row, page, rows
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, serving

ROWS = rows()
ROWS_MIN = 120

SETTINGS = {
    "domains": "s3.test", "website_domains": "s3-website.site.test", "lifecycle_day_seconds": "1", "log_delivery_seconds": "1",
}
"""A lifecycle's day is a second; access logs are delivered each second."""


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("interplay")
    file = folder / "staddle.toml"
    inbox = Inbox()
    file.write_text(configuration(inbox.url))
    with serving(folder / "server", settings=SETTINGS, extra=("--config", str(file))) as server:
        wire = Wire(Target(url=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION))
        yield Asker(wire, inbox)
        wire.close()
    inbox.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.place}-{'+'.join(row.features)}".replace(" ", "-"))
def test_features_meet(asker: Asker, row: Row) -> None:
    asker.run(row)


def test_the_page_is_printed_from_the_table() -> None:
    assert (Path(__file__).parents[2] / "docs" / "INTERPLAY.md").read_text() == page(), "run `python -m tests.interplay`"


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(ROWS) >= ROWS_MIN
    assert len({(row.features, row.situation) for row in ROWS}) == len(ROWS)
