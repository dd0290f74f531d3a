"""pyinfra's own settings for every run from this directory (pyinfra reads ./config.py by itself)."""

from gevent.hub import Hub
from pyinfra import config
from pyinfra.api.exceptions import PyinfraError

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"
# A cluster stops at the first host that fails; by default pyinfra goes on with the others under -y.
config.FAIL_PERCENT = 0
# An operation that stops a run says why by itself; gevent would print a traceback for each host before it.
Hub.NOT_ERROR = (*Hub.NOT_ERROR, PyinfraError)
