"""What works with a version's weights: answer, write them out for other programs, predict all test rows again."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.audit import statement
from components.audit.log import SYSTEM, append
from components.audit.statement import StatementRefused
from components.promotion import statements
from components.settings import MACHINE, Settings
from components.tasks import isolation
from components.tasks.images import MAX_IMAGE_BYTES, ImageRefused, Picture
from components.tasks.problems import Problem, printable, read_regular
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
    loaded = bundle.from_store(instance.store, version.digest) if version else None
    bench = bench_of(instance.settings, loaded)
    shown = pictures_of([(str(path), _content(path)) for path in images], instance.settings)
    answer = Assistant(bench, loaded, instance.settings.grouping).answer([(instruction, text, shown)])[0]
    return {
        "answer": answer.text,
        "version": version.number if version else None,
        "group": answer.group,
        "similarity": answer.similarity if version else None,
        "nearest_task": answer.nearest_task,
    }


def _content(path: Path) -> bytes:
    content = read_regular(path, str(path), MAX_IMAGE_BYTES)
    if isinstance(content, Problem):
        raise ImageRefused(f"{printable(str(path))}: {content.seen}", content.expected)
    return content


def pictures_of(files: Sequence[tuple[str, bytes]], settings: Settings) -> list[Picture]:
    """The images of some files, each with its name for messages; read in a process of their own.

    Raises:
        ImageRefused: one is none that a task could hold; says which.
    """
    return isolation.pictures([(printable(name), content) for name, content in files], settings.packages)


def bench_of(settings: Settings, version: "Bundle | None") -> "Workbench":
    """The base model of the settings or, where a version was tuned on another one (`lcia rebase`), its own."""
    from components.model.workbench import Workbench

    found = Workbench.load(settings)
    if version is None or not version.pool.groups or found.base.digest == version.pool.base_model:
        return found
    here = {name: getattr(settings.base_model, name) for name in MACHINE}
    own = {"base_model": version.settings.base_model.model_copy(update=here), "adapter": version.settings.adapter}
    return Workbench.load(settings.model_copy(update=own))


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
    with contextlib.suppress(StatementRefused):  # it was never champion
        content = statements.content(instance.db, instance.store, instance.assistant, version)
        (folder / statement.FILE).write_bytes(content)
    written = bundle.read(folder, version.digest)
    base, revision = location(written.settings.base_model, written.pool.base_model, models)
    absent = Path(base).is_absolute() and not Path(base).is_dir()
    return {
        "version": version.number,
        "digest": version.digest,
        "folder": str(folder.absolute()),
        "adapters": {group.id: [task.name for task in group.tasks] for group in written.pool.groups},
        "base_model": {"name": base, "revision": revision, "sha256": written.pool.base_model, "absent": absent},
        "vllm": start_arguments(written, folder, models),
        "system": written.settings.base_model.system_prompt,
        "requests": contracts(written),
    }


def reevaluate(instance: Instance, reference: str | None) -> dict[str, Any]:
    """Predict all test rows of a version again, past every cache, and compare with what is stored.

    A version that does not answer as recorded is entered in the log, so that people are told.

    Raises:
        NothingToShow: there is no champion yet and no version was named.
        EvaluationFailed: it was evaluated under other numerics.
    """
    from components.evaluation.carrying import Predictor
    from components.evaluation.prediction import Evaluator
    from components.evaluation.recheck import reevaluate as compared
    from components.serving import bundle
    from steps.progress import Progress

    version = instance.version(reference)
    if version is None:
        raise NothingToShow("there is no champion yet; name a candidate: `lcia reevaluate N`")
    bench = bench_of(instance.settings, bundle.from_store(instance.store, version.digest))
    evaluator = Evaluator(bench.trunk, bench.slot, instance.settings.evaluation.batch_rows)
    predictor = Predictor(instance.store, instance.settings, evaluator, progress=Progress())
    found = compared(predictor, instance.store.get_json(instance.evidence(version)["evaluation"]))
    if not found.ok:
        differ = sum(not one.near_tie for one in found.mismatches)
        details = {"number": version.number, "rows": found.rows, "differ": differ}
        with instance.db.begin() as connection:
            append(connection, "version.differs", SYSTEM, version.digest, details)
    return {"version": version.number, "digest": version.digest, **found.to_json()}
