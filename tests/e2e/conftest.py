"""What the end-to-end tests share."""

import pytest

from tests.bad_events import Ingested, ingest_bad_events


@pytest.fixture(scope="session")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    return ingest_bad_events(tmp_path_factory.mktemp("bad"))
