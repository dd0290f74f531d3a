"""The running lab, with addresses and networks of both families."""

from inventories.lab import control_plane, load_balancer, worker
from tests.lab.full.addresses import of_both as _of_both

control_plane, load_balancer, worker = _of_both(control_plane), _of_both(load_balancer), _of_both(worker)

__all__ = ["control_plane", "load_balancer", "worker"]
