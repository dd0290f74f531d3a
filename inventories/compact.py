"""A compact site, as an example: three control planes that balance themselves, and take ordinary pods too, so that
three machines are a highly available cluster (docs/load-balancing.md).

    pyinfra inventories/compact.py deploys/cluster.py --dry --diff
    pyinfra inventories/compact.py deploys/cluster.py

What differs from group_data/all.py is beside the hosts of the group.
"""

control_plane = (
    [
        ("cp1.example.org", {"address": "192.0.2.21"}),
        ("cp2.example.org", {"address": "192.0.2.22"}),
        ("cp3.example.org", {"address": "192.0.2.23"}),
    ],
    {"load_balancing": "control-planes", "allow_scheduling_on_control_planes": True},
)
