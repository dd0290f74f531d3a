"""What a person needs to understand a sick cluster, in one archive whose first page says what looks wrong.

    pyinfra inventories/prod.py deploys/diagnose.py -y [--data since=6h] [--limit NAME]

Hosts: all that answer; one that does not is a finding. Changes: nothing on any host; an archive, 0600, without secrets,
on the control machine (docs/diagnose.md). Undo: remove the archive.
"""

import re
from pathlib import Path

from pyinfra import host, inventory, logger
from pyinfra.api import deploy

from cluster import eviction
from cluster.findings import names
from cluster.runtime import UNITS
from cluster.topology import Node
from deploys import expiry, plan
from facts.certificate import RENEWAL, Certificates
from operations import questions
from operations.ailments import Case
from operations.diagnose import collect
from operations.interview import Patient

SINCE = "1h"
BALANCER_KEEPS = eviction.Amount(share=0.05)


@deploy("Diagnose")
def diagnose() -> None:
    asked = plan.in_run(plan.everybody().nodes)
    answering = [node for node in asked if inventory.get_host(node.name).connected]
    if plan.me() != answering[0]:
        return
    since, settings = read_since(), plan.settings()
    patients = [patient(node, since) for node in asked]
    directory = Path(settings.secrets_dir) / settings.cluster_name / "diagnoses"
    if not host.state.is_executing:
        tell(patients, since, directory)
    collect(
        name="Ask every host what there is to know",
        patients=patients, case=case(asked, answering), directory=str(directory), since=since,
        version=settings.kubernetes_version,
    )  # fmt: skip


def read_since() -> str:
    """How far back logs are read. Raises InputError."""
    since = str(plan.option("since") or SINCE)
    if not re.fullmatch(r"[1-9]\d{0,5}(min|[smhd])", since):
        plan.refuse([f"since: must be a number with s, min, h or d, not {since!r}, such as --data since=6h"])
    return since


def patient(node: Node, since: str) -> Patient:
    """A host and what it is asked, by its roles."""
    settings, topology = plan.settings(), plan.everybody()
    control_plane, balances = node in topology.control_planes, node in plan.balancers()
    units: list[str] = []
    more: list[questions.Question] = []
    if node not in topology.load_balancers:
        units += ["kubelet.service", UNITS[settings.container_runtime]]
        more += questions.of_node(settings.container_runtime, since)
    if balances:
        units += ["haproxy.service", "keepalived.service"]
        more += questions.of_balancer([str(each) for each in settings.virtual_ips], since)
    if control_plane:
        more += questions.of_control_plane(node.address, plan.endpoint())
        more += questions.of_timer(RENEWAL, since)
    more.append(questions.of_fact(Certificates, seconds=90, **expiry.question(node)))
    role = "control plane" if control_plane else "load balancer" if node in topology.load_balancers else "worker"
    return Patient(node.name, role, (*questions.everywhere(units, since), *more), node.address)


def case(asked: tuple[Node, ...], answering: list[Node]) -> Case:
    """What the settings want of the hosts."""
    settings, topology = plan.settings(), plan.everybody()
    return Case(
        cluster=settings.cluster_name,
        unreachable=tuple(node.name for node in asked if node not in answering),
        not_asked=tuple(node.name for node in topology.nodes if node not in asked),
        control_planes=tuple(node.name for node in topology.control_planes),
        nodes=tuple(node.name for node in (*topology.control_planes, *topology.workers)),
        balancers=tuple(node.name for node in plan.balancers()),
        vips=tuple(str(each) for each in settings.virtual_ips),
        endpoint=str(plan.endpoint()),
        warning_days=settings.certificate_warning_days,
        critical_days=settings.certificate_critical_days,
        bundle_port=str(settings.bundle_port),
        kept={
            node.name: BALANCER_KEEPS
            if node in topology.load_balancers
            else eviction.kept(plan.settings(node.name).kubelet_config)
            for node in topology.nodes
        },
        input=tuple(problems()),
    )


def problems() -> list[str]:
    """What would stop a deploy of these settings, as a finding: whoever asks for a diagnosis gets one."""
    try:
        return plan.problems()
    except plan.InputError as error:
        return [str(error)]


def tell(patients: list[Patient], since: str, directory: Path) -> None:
    """What is asked and where it goes, said before anything is asked."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in patients:
        alike.setdefault(tuple(question.file for question in each.questions), []).append(each.name)
    for files, hosts in alike.items():
        logger.info(f"{names(hosts)}: asked for {', '.join(files)}")
    logger.info(
        f"The cluster is asked for {', '.join(each.file for each in questions.of_cluster(patients[0].address))}"
    )
    logger.info(f"Logs of the last {since}; the archive comes into {directory}")


plan.run(__name__, diagnose, options=("since",), anyway=True)
