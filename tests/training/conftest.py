"""Fixtures of prepared data."""

from tests.helpers.data_fixtures import home, hub, knowgen

__all__ = ["home", "hub", "knowgen"]
