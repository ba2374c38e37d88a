"""Every row of the table on a whole server, and the printed page."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients.shell import Target
from tests.clients.wire import Wire
from tests.interplay.asking import Asker, Inbox, configuration
from tests.interplay.table import Row, page, rows
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, serving

ROWS = rows()
ROWS_MIN = 200

SETTINGS = {
    "domains": "s3.test", "website_domains": "s3-website.site.test", "lifecycle_day_seconds": "1", "log_delivery_seconds": "1",
}
"""A lifecycle's day is a second; access logs are delivered each second."""


Run = Callable[[Row], None]

WAITING_AT_ONCE = 8
"""Rows that wait for something of the server's own (a lifecycle's day, a delivery) wait side by side."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Raises what is wrong with a row. Those that wait are begun at once, the others when they are asked for."""
    folder = tmp_path_factory.mktemp("interplay")
    file = folder / "staddle.toml"
    inbox = Inbox()
    file.write_text(configuration(inbox.url))
    with serving(folder / "server", settings=SETTINGS, extra=("--config", str(file))) as server:
        target = Target(url=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)

        def on_a_connection_of_its_own(row: Row) -> None:
            wire = Wire(target)
            try:
                Asker(wire, inbox).run(row)
            finally:
                wire.close()

        with ThreadPoolExecutor(WAITING_AT_ONCE) as pool:
            begun = {row.place: pool.submit(on_a_connection_of_its_own, row) for row in ROWS if row.waits}
            yield lambda row: begun[row.place].result() if row.waits else on_a_connection_of_its_own(row)
    inbox.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.place}-{'+'.join(row.features)}".replace(" ", "-"))
def test_features_meet(run: Run, row: Row) -> None:
    run(row)


def test_the_page_is_printed_from_the_table() -> None:
    assert (Path(__file__).parents[2] / "docs" / "INTERPLAY.md").read_text() == page(), "run `python -m tests.interplay`"


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(ROWS) >= ROWS_MIN
    assert len({(row.features, row.situation) for row in ROWS}) == len(ROWS)
