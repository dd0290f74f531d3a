"""Everything that would make the deploy fail, found before the first change (guide 2.1, docs/preflight.md).

Hosts: all. Changes nothing. All findings of all hosts are reported at once; errors stop the run.
"""

from pyinfra.api import deploy

from deploys import plan, survey


@deploy("Preflight")
def preflight() -> None:
    plan.refuse(survey.findings().lines("error"))
    plan.barrier("preflight")


plan.run(__name__, preflight)
