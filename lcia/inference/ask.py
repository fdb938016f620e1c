"""Work with a version's weights: ask it, export it for other programs, predict its test rows again."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.audit import statement
from components.audit.log import SYSTEM, append
from components.audit.statement import StatementRefused
from components.promotion import statements
from components.settings import Fallback, Settings
from components.tasks import isolation
from components.tasks.images import MAX_IMAGE_BYTES, ImageRefused, Picture
from components.tasks.problems import Problem, printable, read_regular
from lcia.inference.gateway import GatewayAnswerer
from lcia.instance import Instance
from lcia.operations.figures import NothingToShow

if TYPE_CHECKING:
    from components.model.workbench import Workbench
    from components.serving.bundle import Bundle


def ask(
    instance: Instance,
    instruction: str,
    text: str | None,
    reference: str | None,
    *,
    base: bool,
    images: Sequence[Path] = (),
    fallback: Fallback | None = None,
) -> dict[str, Any]:
    """Answer one instruction by a version (default: the champion) or by the base model alone.

    Raises:
        ImageRefused: a file that can't be read, or is no image.
    """
    from components.serving import bundle
    from components.serving.assistant import Assistant

    version = None if base else instance.version(reference)
    if version:
        instance.need_statement(version)
    serving_bundle = bundle.from_store(instance.store, version.digest) if version else None
    bench = bench_of(instance.settings, serving_bundle)
    pictures = pictures_of([(str(path), _content(path)) for path in images], instance.settings)
    answer = Assistant(bench, serving_bundle, instance.settings.grouping).answer(
        [(instruction, text, pictures)], fallback=fallback
    )[0]
    return _reply(version.number if version else None, vars(answer))


def ask_gateway(
    settings: Settings,
    instruction: str,
    text: str | None,
    reference: str | None,
    *,
    base: bool,
    images: Sequence[Path] = (),
    fallback: Fallback | None = None,
) -> dict[str, Any]:
    """Answer one instruction by the gateway that the settings name, as `ask` does.

    Raises:
        GatewayFailed: it does not answer, or refuses.
        ImageRefused: a file that can't be read.
    """
    name = settings.assistant
    model = "base" if base else f"{name}@{reference}" if reference else name
    files = [_content(path) for path in images]
    answer = GatewayAnswerer(settings).answer(model, instruction, text, files, fallback)
    return _reply(None if base else answer["version"], answer)


def _reply(version: int | None, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as `lcia ask` prints it; `version` None: the base model's alone."""
    return {
        "answer": answer["text"],
        "version": version,
        "group": answer["group"],
        "similarity": answer["similarity"] if version else None,
        "nearest_task": answer["nearest_task"],
    }


def _content(path: Path) -> bytes:
    content = read_regular(path, str(path), MAX_IMAGE_BYTES)
    if isinstance(content, Problem):
        raise ImageRefused(f"{printable(str(path))}: {content.seen}", content.expected)
    return content


def pictures_of(files: Sequence[tuple[str, bytes]], settings: Settings) -> list[Picture]:
    """Images of files, which are read in a process of its own; their names are for messages.

    Raises:
        ImageRefused: a file is no image that a task could hold; the message names it.
    """
    return isolation.pictures([(printable(name), content) for name, content in files], settings.packages)


def bench_of(settings: Settings, version: "Bundle | None") -> "Workbench":
    """The base model of a version under its own settings; without a version, that of the settings here."""
    from components.model.workbench import Workbench
    from components.serving.loaded import settings_of

    return Workbench.load(settings_of(version, settings))


def export(instance: Instance, reference: str | None, folder: Path) -> dict[str, Any]:
    """Write a version (default: the champion) as plain files that other programs load.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
        BundleRefused: `folder` holds something already.
        StatementRefused, KeyUnusable: see `Instance.need_statement`.
    """
    from components.model.base import location
    from components.serving import bundle
    from components.serving.vllm import contracts, start_arguments

    version = instance.version(reference)
    if version is None:
        raise NothingToShow("there is no champion yet; name a version: `lcia export 1 FOLDER`")
    instance.need_statement(version)
    models = Path(instance.settings.storage.models)
    bundle.write(instance.store, version.digest, folder, models)
    with contextlib.suppress(StatementRefused):  # none: it was never champion
        content = statements.content(instance.db, instance.store, instance.assistant, version)
        (folder / statement.FILE).write_bytes(content)
    files = bundle.read(folder, version.digest)
    base, revision = location(files.settings.base_model, files.pool.base_model, models)
    missing = Path(base).is_absolute() and not Path(base).is_dir()
    return {
        "version": version.number,
        "digest": version.digest,
        "folder": str(folder.absolute()),
        "adapters": {group.id: [task.name for task in group.tasks] for group in files.pool.groups},
        "base_model": {"name": base, "revision": revision, "sha256": files.pool.base_model, "absent": missing},
        "vllm": start_arguments(files, folder, models),
        "system": files.settings.base_model.system_prompt,
        "requests": contracts(files),
    }


def reevaluate(instance: Instance, reference: str | None) -> dict[str, Any]:
    """Predict all test rows of a version again, past every cache, and compare with what is stored.

    If the version answers differently, an entry in the log says so, and people get a notice.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
        EvaluationFailed: it was evaluated under other numerics.
    """
    from components.evaluation import recheck
    from components.evaluation.carrying import Predictor
    from components.evaluation.prediction import Evaluator
    from components.serving import bundle
    from steps.progress import ProgressCounter

    version = instance.version(reference)
    if version is None:
        raise NothingToShow("there is no champion yet; name a candidate: `lcia reevaluate N`")
    bench = bench_of(instance.settings, bundle.from_store(instance.store, version.digest))
    evaluator = Evaluator(bench.trunk, bench.slot, instance.settings.evaluation.batch_rows)
    predictor = Predictor(instance.store, instance.settings, evaluator, progress=ProgressCounter())
    comparison = recheck.reevaluate(predictor, instance.store.get_json(instance.evidence(version)["evaluation"]))
    if not comparison.ok:
        differ = sum(not one.near_tie for one in comparison.mismatches)
        details = {"number": version.number, "rows": comparison.rows, "differ": differ}
        with instance.db.begin() as connection:
            append(connection, "version.differs", SYSTEM, version.digest, details)
    return {"version": version.number, "digest": version.digest, **comparison.to_json()}
