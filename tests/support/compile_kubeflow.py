"""What Kubeflow would be sent for both pipelines, compiled by ZenML's orchestrator; run in the environment with kfp.

Nothing is sent: the upload is left out, and with it the ZenML server that a run would need.
"""

import json
import sys
from pathlib import Path

import yaml

from components.settings import load_settings
from infra import environment, runs
from infra.stacks import kubeflow

home, config = Path(sys.argv[1]), Path(sys.argv[2])
environment.prepare(home)

from zenml.client import Client  # noqa: E402
from zenml.enums import StackComponentType  # noqa: E402
from zenml.utils import source_utils  # noqa: E402

from infra.stacks.kubernetes import register  # noqa: E402
from pipelines.assess_task import assess_task  # noqa: E402
from pipelines.learn_task import learn_task  # noqa: E402

settings = load_settings(config, home_folder=home)
source_utils.set_custom_source_root(str(runs.SOURCE_ROOT))
Client().create_flavor("infra.stacks.kubeflow_pods.Flavor", StackComponentType.ORCHESTRATOR)
register(kubeflow.NAME, (kubeflow.NAME, kubeflow.component(settings.cluster.kubeflow)), home, "registry.example.com")
stack = Client().active_stack
stack.validate(fail_if_secrets_missing=True)
sent: dict[str, list[object]] = {}
type(stack.orchestrator)._upload_and_run_pipeline = lambda self, snapshot, pipeline_file_path, run_name: sent.update(
    {snapshot.pipeline_configuration.name: list(yaml.safe_load_all(Path(pipeline_file_path).read_text()))}
)
for pipeline in (assess_task, learn_task):
    options = kubeflow.run_options(settings.cluster, "/state", runs.STEPS[pipeline.name])
    configured = pipeline.with_options(**options, enable_cache=False)
    configured.prepare(store="file:///state/objects", order="0" * 64)
    stack.orchestrator.run(configured._create_snapshot(**configured._run_args), stack)
print(json.dumps(sent))
