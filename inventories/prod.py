"""A real site, as an example: replace names and addresses by yours. Settings are in group_data/all.py.

    pyinfra inventories/prod.py deploys/cluster.py --dry --diff
    pyinfra inventories/prod.py deploys/cluster.py

A host is its name, which becomes the node's name, and its own data. `address` is its address in the cluster;
`ssh_hostname` where SSH reaches it, if that is another. The first control plane is where `kubeadm init` runs.
Addresses here are of RFC 5737, which nobody has. Keep other lists of strings out of this file: pyinfra takes each
for a group of hosts.
"""

load_balancer = [
    ("lb1.example.org", {"address": "192.0.2.11"}),
    ("lb2.example.org", {"address": "192.0.2.12"}),
]

control_plane = [
    ("cp1.example.org", {"address": "192.0.2.21"}),
    ("cp2.example.org", {"address": "192.0.2.22"}),
    ("cp3.example.org", {"address": "192.0.2.23"}),
]

worker = [
    ("worker1.example.org", {"address": "192.0.2.31"}),
    ("worker2.example.org", {"address": "192.0.2.32"}),
    # A host may differ from its group: here in the port of SSH.
    ("worker3.example.org", {"address": "192.0.2.33", "ssh_port": 2222}),
]
