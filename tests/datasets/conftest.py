"""Fixtures that several tests of datasets share."""

from tests.s3 import moto_url, s3  # noqa: F401 - fixtures
