"""Laws of the house: each component is tested where one looks for it, and names and docstrings say what a thing is."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("components", "infra", "lcia", "pipelines", "steps")
ELSEWHERE = {
    "audit/chain": "audit/test_log.py",
    "audit/decisions": "audit/test_state.py",
    "audit/keys": "audit/test_keyring.py",
    "audit/ledger": "audit/test_state.py",
    "audit/verify": "audit/test_log.py",
    "errors": "cli/test_failures.py",
    "evaluation/history": "evaluation/test_forgetting.py",
    "evaluation/prior_tasks": "evaluation/test_forgetting.py",
    "evaluation/recheck": "evaluation/test_carrying.py",
    "evaluation/rerouting": "evaluation/test_forgetting.py",
    "evaluation/tuning_report": "evaluation/test_reports.py",
    "gate/inputs": "gate/test_gate.py",
    "grouping/codebook": "grouping/test_router.py",
    "grouping/content_words": "grouping/test_tfidf.py",
    "grouping/encoders": "grouping/test_embedding.py",
    "grouping/input_profile": "grouping/test_inputs.py",
    "grouping/input_words": "grouping/test_inputs.py",
    "grouping/report": "grouping/test_map.py",
    "grouping/sentence_model": "grouping/test_embedding.py",
    "grouping/space": "grouping/test_embedding.py",
    "identity/access": "identity/test_people.py",
    "identity/sessions": "service/test_sessions.py",
    "model/choosing": "model/test_reachability.py",
    "model/context": "model/test_control.py",
    "model/image_support": "model/test_vision.py",
    "model/memory": "tuning/test_memory.py",
    "model/packing": "model/test_trunk.py",
    "model/ranks": "steps/test_processes.py",
    "model/reader": "model/test_vision.py",
    "model/sharding": "model/test_trunk.py",
    "notices/channels": "notices/test_notices.py",
    "pages": "console/test_rendering.py",
    "promotion/automatic": "storage/test_privileges.py",
    "promotion/candidates": "promotion/test_approvals.py",
    "promotion/evidence": "promotion/test_integrity.py",
    "promotion/reasons": "promotion/test_approvals.py",
    "promotion/carry_over": "worker/test_train.py",
    "tasks/reversal": "worker/test_changes.py",
    "promotion/rebase": "worker/test_rebase.py",
    "promotion/reconcile": "cli/test_lost_database.py",
    "promotion/serving_watch": "storage/test_privileges.py",
    "promotion/statements": "audit/test_statement.py",
    "promotion/trial_end": "promotion/test_trials.py",
    "promotion/trial_rows": "promotion/test_trials.py",
    "quality/drift_report": "quality/test_admixture.py",
    "quality/image_samples": "quality/test_image_checks.py",
    "quality/leaks": "quality/test_fingerprints.py",
    "quality/near_duplicates": "quality/test_row_checks.py",
    "quality/omissions": "quality/test_admixture.py",
    "quality/personal": "quality/test_row_checks.py",
    "quality/rule": "quality/test_fingerprints.py",
    "quality/rules": "quality/test_fingerprints.py",
    "quality/samples": "quality/test_admixture.py",
    "quality/scripts": "quality/test_row_checks.py",
    "quality/validation_report": "quality/test_reachable.py",
    "registry/deletion": "registry/test_accounts.py",
    "registry/differences": "registry/test_locations.py",
    "registry/files": "registry/test_accounts.py",
    "registry/limits": "registry/test_outbox_rows.py",
    "registry/publication": "faults/test_kill.py",
    "registry/registry": "registry/test_outbox.py",
    "registry/replay": "registry/test_locations.py",
    "registry/retelling": "registry/test_accounts.py",
    "registry/upload": "registry/test_outbox.py",
    "retention/rules": "retention/test_sweep.py",
    "retention/withdrawal": "retention/test_sweep.py",
    "roles": "service/test_access.py",
    "serving/assistant": "serving/test_bundle.py",
    "serving/contract": "serving/test_answering.py",
    "serving/engine": "serving/test_embedded.py",
    "settings/cluster": "infra/test_pods.py",
    "settings/gateway": "gateway/test_server.py",
    "settings/learning": "test_readme.py",
    "settings/packages": "tasks/test_budgets.py",
    "settings/policy": "promotion/test_policy.py",
    "settings/quality": "quality/test_validation.py",
    "settings/reference": "test_readme.py",
    "settings/root": "test_readme.py",
    "settings/section": "infra/test_pods.py",
    "settings/services": "service/test_addresses.py",
    "storage/privilege_checks": "storage/test_backup.py",
    "storage/remains": "storage/test_fence.py",
    "storage/results": "storage/test_privileges.py",
    "storage/rounds": "storage/test_privileges.py",
    "storage/sqlite": "storage/test_database.py",
    "storage/tables": "storage/test_database.py",
    "tasks/columns": "tasks/test_isolation.py",
    "tasks/confinement": "tasks/test_isolation.py",
    "tasks/conversion": "tasks/test_isolation.py",
    "tasks/foreign": "tasks/test_importing.py",
    "tasks/frames": "tasks/test_images.py",
    "tasks/options": "tasks/test_importing.py",
    "tasks/parquet": "tasks/test_layouts.py",
    "tasks/parser": "tasks/test_isolation.py",
    "tasks/parser_process": "tasks/test_isolation.py",
    "tasks/problems": "tasks/test_package.py",
    "tasks/proposals": "worker/test_rewording.py",
    "tasks/records": "tasks/test_budgets.py",
    "tasks/repair": "tasks/test_importing.py",
    "tasks/rows": "tasks/test_package.py",
    "tasks/source_images": "tasks/test_importing.py",
    "tasks/task_file": "tasks/test_package.py",
    "tasks/values": "tasks/test_budgets.py",
    "tuning/points": "tuning/test_memory.py",
    "tuning/run": "tuning/test_memory.py",
}
"""Components without a test file of their name, and the file that tests them, below tests/."""

MOST_PARTICIPLES = 50
IRREGULAR = frozenset(
    [
        "found",
        "known",
        "made",
        "told",
        "given",
        "seen",
        "kept",
        "taken",
        "held",
        "left",
        "shown",
        "asked",
        "wanted",
        "said",
        "gone",
        "lost",
        "sent",
        "written",
        "drawn",
        "chosen",
        "begun",
        "done",
        "built",
        "brought",
        "bought",
        "caught",
        "taught",
        "thought",
        "understood",
        "sought",
        "spent",
        "stood",
        "met",
        "paid",
        "laid",
        "led",
        "fed",
        "bound",
        "hurt",
        "hidden",
        "broken",
        "frozen",
        "worn",
        "torn",
        "sworn",
        "born",
        "thrown",
        "flown",
        "drunk",
        "sung",
        "forgotten",
        "overridden",
        "driven",
        "risen",
        "fallen",
        "eaten",
        "beaten",
        "shaken",
        "mistaken",
        "proven",
        "shot",
        "swept",
        "meant",
        "heard",
        "sold",
        "won",
        "become",
    ]
)
NO_PARTICIPLES = frozenset(
    ["need", "seed", "feed", "speed", "embed", "exceed", "proceed", "succeed", "breed", "indeed", "weed", "hundred"]
)
QUESTIONS = ("What", "Which", "Who", "Whose", "How", "Whether", "Where", "When")


def sources(*folders: str) -> list[Path]:
    return [
        file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")) if "versions" not in file.parts
    ]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def names_in(file: Path) -> frozenset[str]:
    """Modules that a file imports, and those that it names in a text, as a program for another process does."""
    names = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set(re.findall(r"\bcomponents(?:\.\w+)+", node.value))
    return frozenset(names)


def reached(test: Path, users: dict[str, frozenset[str]]) -> set[str]:
    """Modules that a test names, those that these import, and once more: what it runs without going far."""
    names = set(names_in(test))
    for _ in range(2):
        names = names.union(*(users[name] for name in names if name in users))
    return names


def test_each_component_is_tested_where_one_looks_for_it():
    users = {dotted(file): names_in(file) for file in sources(*PACKAGES)}
    files = [file for file in sources("components") if file.name != "__init__.py" and "migrations" not in file.parts]
    wrong, rest = [], dict(ELSEWHERE)
    for file in files:
        path = file.relative_to(ROOT / "components")
        test = rest.pop(path.with_suffix("").as_posix(), None)
        mirror = path.with_name(f"test_{path.name}")
        if (ROOT / "tests" / mirror).exists():
            wrong += [f"{path} has tests/{mirror}, and a line that says {test}"] if test else []
        elif test is None:
            wrong.append(f"{path}: write tests/{mirror}, or a line that says where it is tested")
        elif not (ROOT / "tests" / test).exists():
            wrong.append(f"{path}: tests/{test} is not there")
        elif dotted(file) not in reached(ROOT / "tests" / test, users):
            wrong.append(f"{path}: tests/{test} has nothing to do with it")
    assert not wrong, "\n".join(wrong)
    assert rest == {}, "lines about modules that are not there"


def is_participle(name: str) -> bool:
    bare = name.strip("_")
    regular = bare.endswith("ed") and len(bare) > 3 and bare not in NO_PARTICIPLES
    return bare.islower() and "_" not in bare and (bare in IRREGULAR or regular)


def bindings(node: ast.AST, scope: str = "", *, fields: bool = False) -> Iterator[tuple[str, str]]:
    """(scope, name) of each variable, argument and function; fields of classes are what is stored, and not counted."""
    for child in ast.iter_child_nodes(node):
        inner, in_class = scope, fields
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield scope, child.name
            inner, in_class = f"{scope}.{child.name}", False
        elif isinstance(child, ast.ClassDef):
            inner, in_class = f"{scope}.{child.name}", True
        elif isinstance(child, ast.arg):
            yield scope, child.arg
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and not fields:
            yield scope, child.id
        yield from bindings(child, inner, fields=in_class)


def test_names_say_what_a_thing_is_and_not_what_befell_it():
    found = {
        f"{file.relative_to(ROOT)}{scope}: {name}"
        for file in sources(*PACKAGES)
        for scope, name in bindings(tree(file))
        if is_participle(name)
    }
    assert len(found) <= MOST_PARTICIPLES, "\n".join(sorted(found))


def test_no_docstring_opens_with_a_question():
    asking = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {node.value.value[:60]}"
        for file in sources(*PACKAGES)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.value.split(maxsplit=1)[0].rstrip(",'") in QUESTIONS
    ]
    assert not asking, "\n".join(asking)
