"""The shipped admission policies, evaluated by a library of the Common Expression Language as an API server would.

Not an API server: it knows one policy per kind, takes no defaults in, and the library lacks what Kubernetes adds to
the language. The policies use none of that.
"""

from pathlib import Path
from typing import Any

import cel
import yaml

MANIFEST = Path(__file__).parents[2] / "k8s" / "runs" / "admission.yaml"
WORKER = "system:serviceaccount:lcia:worker"
Doc = dict[str, Any]


def policies() -> list[Doc]:
    """As they are shipped."""
    documents = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    return [one for one in documents if one["kind"] == "ValidatingAdmissionPolicy"]


def refusals(resource: str, thing: Doc, image: str, user: str = WORKER, operation: str = "CREATE") -> list[str]:
    """Messages of the rules that refuse an object of a resource (`jobs`), and errors; `image` is that of steps."""
    found = []
    for policy in policies():
        spec = policy["spec"]
        rules = spec["matchConstraints"]["resourceRules"]
        if not any(resource in rule["resources"] and operation in rule["operations"] for rule in rules):
            continue
        told = {"object": thing, "params": {"data": {"image": image}}, "request": {"userInfo": {"username": user}}}
        variables: Doc = {}
        try:
            for one in spec.get("variables", ()):
                variables[one["name"]] = cel.evaluate(one["expression"], {**told, "variables": variables})
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            return [f"{policy['metadata']['name']}: {error!r}"]
        for rule in spec["validations"]:
            try:
                held = cel.evaluate(rule["expression"], {**told, "variables": variables})
            except (KeyError, RuntimeError, TypeError) as error:
                held = f"{error!r}"
            if held is not True:
                found.append(rule["message"])
    return found
