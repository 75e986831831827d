"""What a pod's workload is called: by what made it, not by the pod's own name (traffic.md N-70)."""

import re
from typing import Final

from pilothouse.api.kubernetes_core import Pod

OWN_NAME: Final = "service.istio.io/workload-name"
_HASHES: Final = ("pod-template-hash", "rollouts-pod-template-hash")
_SCHEDULED: Final = re.compile(r"(.+)-\d{8,10}")
"""A Job that a CronJob made is called by the time it was for."""


def workload_of_pod(pod: Pod) -> str:
    """
    Return the name that statistics give a pod's workload.

    Its label, else that of its Deployment, StatefulSet, CronJob or the like, else the pod's own.
    """
    labels = pod.meta.labels
    if OWN_NAME in labels:
        return labels[OWN_NAME]
    kind, _, name = pod.meta.controller.partition("/")
    match kind:
        case "ReplicaSet":
            for each in _HASHES:
                if labels.get(each) and name.endswith(f"-{labels[each]}"):
                    return name.removesuffix(f"-{labels[each]}")
        case "ReplicationController":
            name = labels.get("deploymentconfig") or name
        case "Job":
            scheduled = _SCHEDULED.fullmatch(name)
            name = scheduled[1] if scheduled else name
    return name or pod.meta.name
