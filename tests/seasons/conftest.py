"""A season that is published once for the tests of this folder."""

from __future__ import annotations

import pytest

from knowgen.seasons.publish import publish
from tests.helpers.seasons import NAME, SAMPLES, Season, places_in, private_folder


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    """Return an open season without submissions; tests must not change it."""
    places = places_in(tmp_path_factory.mktemp("season"))
    private_folder(places)
    publish(places, NAME, SAMPLES, closes="2027-01-31", workers=1)
    return Season(places)
