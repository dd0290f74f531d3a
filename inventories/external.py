"""A site with a load balancer of its own, as an example: it is asked whether it is there, and left alone
(docs/load-balancing.md).

    pyinfra inventories/external.py deploys/cluster.py --dry --diff
    pyinfra inventories/external.py deploys/cluster.py

What differs from group_data/all.py is beside the hosts of each group.
"""

_site = {"load_balancing": "external", "control_plane_endpoint": "kubernetes.example.org:6443"}

control_plane = (
    [
        ("cp1.example.org", {"address": "192.0.2.21"}),
        ("cp2.example.org", {"address": "192.0.2.22"}),
        ("cp3.example.org", {"address": "192.0.2.23"}),
    ],
    _site,
)

worker = (
    [("worker1.example.org", {"address": "192.0.2.31"}), ("worker2.example.org", {"address": "192.0.2.32"})],
    _site,
)
