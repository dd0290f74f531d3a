"""What differs between hosts and what they are described as: deploys/cluster.py planned, and never executed.

Hosts: all. Changes nothing. pyinfra ends with 0 where nothing differs, with 2 where something does, and with 1 where
that could not be told (docs/drift.md).
"""

from deploys import plan
from deploys.cluster import cluster

plan.run(__name__, cluster, only=True)
