"""In a pod of the test double: its kubeconfig stands for the cluster's own, its pod's name for the machine's."""

import os
import socket

if "DOUBLE_POD_NAME" in os.environ:
    from kubernetes import config

    config.load_incluster_config = config.load_kube_config
    socket.gethostname = lambda: os.environ["DOUBLE_POD_NAME"]
