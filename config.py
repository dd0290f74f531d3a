"""pyinfra's own settings for every run from this directory (pyinfra reads ./config.py by itself)."""

import sys
from pathlib import Path

from gevent.hub import Hub
from pyinfra import config
from pyinfra.api.exceptions import PyinfraError

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"
# A cluster stops at the first host that fails; by default pyinfra goes on with the others under -y.
config.FAIL_PERCENT = 0
# A diagnosis alone goes on: hosts that do not answer are what it is for, and pyinfra counts them before any deploy.
if {Path(word).name for word in sys.argv if Path(word).parent.name == "deploys"} == {"diagnose.py"}:
    config.FAIL_PERCENT = 100
# An operation that stops a run says why by itself; gevent would print a traceback for each host before it.
Hub.NOT_ERROR = (*Hub.NOT_ERROR, PyinfraError)
