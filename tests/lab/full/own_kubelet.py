"""The running lab, with a kubelet on w1 that is configured otherwise than the cluster's."""

from inventories.lab import control_plane, load_balancer, worker

worker = [(name, {**data, "kubelet_config": {**data["kubelet_config"], "maxPods": 77}}) for name, data in worker]

__all__ = ["control_plane", "load_balancer", "worker"]
