"""Settings of the cluster, on every host of every inventory; docs/settings.md has all of them, each with its default.

A host's own data in the inventory goes before these, so the lab (inventories/lab.py) keeps its own addresses.
A file beside this one named after a group (control_plane.py, worker.py, load_balancer.py) holds what differs there.
"""

from deploys.ssh import transport

# How SSH reaches the hosts: a user that may sudo, its key, and host keys that are known before the first login.
ssh_user = "admin"
# ssh_key = "~/.ssh/id_ed25519"
# ssh_known_hosts_file = "~/.ssh/known_hosts"
ssh_strict_host_key_checking = "yes"
ssh_paramiko_connect_kwargs = {"transport_factory": transport}
_sudo = True
# Where sudo asks for a password: read it from a file that only you can read, never write it here.
# _sudo_password = open("secrets/sudo").read().strip()

# Who balances the API (docs/load-balancing.md): "dedicated" hosts, the "control-planes", an "external" one, or "none".
# load_balancing = "dedicated"
# The address of the API, free in the load balancers' subnet. There is no default.
vip = "192.0.2.100"
# A name for it, which may outlive the address. It cannot be changed once there is a cluster.
# control_plane_endpoint = "kubernetes.example.org:6443"
cluster_name = "production"
kubernetes_version = "v1.36.2"

# The bundle (docs/bundle.md): who must have signed it, as a file of OpenSSH public keys that came here by another way.
# bundle_public_key = "/etc/pyinfra-kubeadm/bundle.pub"
# Which hosts hand it on to the others, the first one first; unset, the load balancers do.
# bundle_servers = ("lb1.example.org", "lb2.example.org")
# Images are loaded into each node; or with "registry" pulled from those servers when they are wanted.
# image_delivery = "registry"

# None of these may overlap with each other or with any network of the site.
pod_subnet = "10.244.0.0/16"
service_subnet = "10.96.0.0/12"

# The pod network, and how kube-proxy works (docs/networks.md): "flannel", "calico", "cilium", "bridge", or "none" for
# your own.
# cni = "flannel"
# kube_proxy_mode = "iptables"

# Names by which people will reach the API beside the virtual IP.
api_cert_extra_sans = ("kubernetes.example.org",)

# Time: certificates and etcd need it. "check" leaves the site's own service alone, "chrony" configures one.
time_sync = "chrony"
ntp_servers = ("192.0.2.1",)

# Add-ons (docs/addons.md): settings of CoreDNS by default; those of the bundle by name.
# addons = ("coredns", "metrics-server", "local-path")
# dns_forwarders = ("192.0.2.53",)

# Backups of etcd (docs/backup.md): when, as systemd's OnCalendar has it, how many, and to whom they are encrypted.
# backup_schedule = "*-*-* 02:00:00"
# backup_keep = 7
# backup_certificate = "backup.pem"

# Certificates renewed by each control plane itself (docs/certificates.md): when, and how many days before their end.
# certificate_renewal_schedule = "*-*-* 03:30:00"
# certificate_renewal_days = 60

# Fields of Kubernetes' own configuration, all there are; docs/configuration.md says how.
# cluster_configuration = {"apiServer": {"extraArgs": {"audit-log-path": "/var/log/kubernetes/audit.log"}}}
# kubelet_config = {"maxPods": 200}
