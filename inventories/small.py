"""A small site, as an example: one control plane, no load balancer. The name of the API is one of its own, so that
load balancers can be put before it later (docs/load-balancing.md).

    pyinfra inventories/small.py deploys/cluster.py --dry --diff
    pyinfra inventories/small.py deploys/cluster.py

What differs from group_data/all.py is beside the hosts of each group.
"""

_site = {"load_balancing": "none", "control_plane_endpoint": "kubernetes.example.org:6443"}

control_plane = ([("cp1.example.org", {"address": "192.0.2.21"})], _site)

worker = (
    [("worker1.example.org", {"address": "192.0.2.31"}), ("worker2.example.org", {"address": "192.0.2.32"})],
    _site,
)
