"""Django's `BaseCacheTests` on our backend; the working directory is `tests/` of its source."""

import sys

import django
from django.conf import settings

sys.path.insert(0, ".")
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["cache"],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    SECRET_KEY="suite",
    USE_TZ=False,
)
django.setup()

from cache.tests import BaseCacheTests, caches_setting_for_tests  # noqa: E402
from django.test import TestCase, override_settings  # noqa: E402
from django.test.utils import get_runner  # noqa: E402


@override_settings(
    CACHES=caches_setting_for_tests(
        # As for Redis: limits are kept by trimming, and not at the very next `set`.
        BACKEND="efsstate.adapters.django.EfsCache", LOCATION="", exclude={"cull", "zero_cull"}
    )
)  # fmt: skip
class EfsCacheTests(BaseCacheTests, TestCase):
    pass


if __name__ == "__main__":
    runner = get_runner(settings)(verbosity=1)
    sys.exit(bool(runner.run_tests(["__main__"])))
