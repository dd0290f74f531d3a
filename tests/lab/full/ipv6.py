"""The running lab, with addresses and networks of IPv6 alone."""

from inventories.lab import control_plane, load_balancer, worker
from tests.lab.full.addresses import of_ipv6 as _of_ipv6

control_plane, load_balancer, worker = _of_ipv6(control_plane), _of_ipv6(load_balancer), _of_ipv6(worker)

__all__ = ["control_plane", "load_balancer", "worker"]
