"""pyinfra's own settings for every run from this directory (pyinfra reads ./config.py by itself)."""

import sys
from functools import cache
from pathlib import Path
from traceback import walk_stack
from types import SimpleNamespace

from gevent.hub import Hub
from pyinfra import config
from pyinfra.api import arguments, util
from pyinfra.api.exceptions import PyinfraError

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"
# A cluster stops at the first host that fails; by default pyinfra goes on with the others under -y.
config.FAIL_PERCENT = 0
# A diagnosis alone goes on: hosts that do not answer are what it is for, and pyinfra counts them before any deploy.
if {Path(word).name for word in sys.argv if Path(word).parent.name == "deploys"} == {"diagnose.py"}:
    config.FAIL_PERCENT = 100
# An operation that stops a run says why by itself; gevent would print a traceback for each host before it.
Hub.NOT_ERROR = (*Hub.NOT_ERROR, PyinfraError)
# For every operation of every host pyinfra 3.10 has `inspect` look twice for the source of its whole stack, of which it
# takes file and line alone; for every fact it evaluates its own type hints. With many hosts these were most of a run's
# time. Upstream, `context=0` and a cache would do.
util.stack = lambda: [(frame,) for frame, _ in walk_stack(sys._getframe(1))]
util.getframeinfo = lambda frame: SimpleNamespace(filename=frame.f_code.co_filename, lineno=frame.f_lineno)
arguments.all_global_arguments = cache(arguments.all_global_arguments)
