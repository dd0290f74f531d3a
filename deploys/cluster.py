"""A highly available cluster, whole: the contents page, in the order of the guide.

Each layer is a file of the same name beside this one, and can be run alone.
"""

from pyinfra.api import deploy

from deploys import plan
from deploys.addons import addons
from deploys.backup_timer import backup_timer
from deploys.certificate_timer import certificate_timer
from deploys.control_plane import control_plane
from deploys.distribute import distribute
from deploys.firewall import firewall
from deploys.images import images
from deploys.load_balancer import load_balancer
from deploys.network import network
from deploys.node import node
from deploys.packages import packages
from deploys.preflight import preflight
from deploys.reconfigure import arrive
from deploys.runtime import runtime
from deploys.verify import verify
from deploys.workers import workers


@deploy("Cluster")
def cluster() -> None:
    preflight()  # guide 2.1
    firewall()  # 2.1
    distribute()  # 2.4
    node()  # 3.1
    runtime()  # 3.2
    images()  # 3.2
    packages()  # 3.3
    load_balancer()  # 4
    control_plane()  # 5.1, 5.2
    workers()  # 5.3
    network()  # 6.1
    addons()  # 6.1
    arrive()  # 4
    backup_timer()  # 7
    certificate_timer()  # 7
    verify()  # 6.2


plan.run(__name__, cluster)
