"""pyinfra's own settings for every run from this directory (pyinfra reads ./config.py by itself)."""

from pyinfra import config

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"
# A cluster stops at the first host that fails; by default pyinfra goes on with the others under -y.
config.FAIL_PERCENT = 0
