"""A season that is published, scored and revealed once for the tests of this folder."""

from __future__ import annotations

import pytest

from knowgen.seasons.publish import publish
from knowgen.seasons.reveal import close, reveal
from tests.helpers.seasons import NAME, SAMPLES, Season, places_in, private_folder


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    """Return an open season without submissions; tests must not change it."""
    places = places_in(tmp_path_factory.mktemp("season"))
    private_folder(places)
    publish(places, NAME, SAMPLES, closes="2027-01-31", workers=1)
    return Season(places)


@pytest.fixture(scope="session")
def scored(season: Season, tmp_path_factory: pytest.TempPathFactory) -> Season:
    """Return an open season with one submission; tests must not change it."""
    root = tmp_path_factory.mktemp("scored")
    copy = season.copied_to(root)
    copy.score(*copy.send(root))
    return copy


@pytest.fixture(scope="session")
def revealed(scored: Season, tmp_path_factory: pytest.TempPathFactory) -> Season:
    """Return a revealed season with one submission; tests must not change it."""
    copy = scored.copied_to(tmp_path_factory.mktemp("revealed"))
    close(copy.places.board, "2027-01-31")
    assert reveal(copy.places.board, copy.places.private, "2027-02-01").images == 3
    return copy
