"""Step: Great Expectations checks of the snapshot."""

from typing import Annotated

from zenml import log_metadata, step
from zenml.metadata.metadata_types import MetadataType
from zenml.types import HTMLString

from components.quality.validation import Background, validate
from components.quality.validation_report import validation_html
from components.tasks.snapshot import load_snapshot
from steps.order import open_order


@step(enable_cache=False)
def validate_data(
    store: str, order: str, task: str
) -> tuple[Annotated[str, "validation"], Annotated[HTMLString, "validation_report"]]:
    """Digest of the validation record, with its report.

    Raises:
        SeesNoImages: the task shows images, and the base model reads text only.
        TooLong: rows of an earlier task exceed a `base_model.max_tokens` that was lowered.
        ContentRefused: a text that the base model's tokenizer or chat template can't take as text.
    """
    from components.model.base import BaseModelError
    from components.model.context import need_sight, token_checks

    context = open_order(store, order)
    snapshot, settings = load_snapshot(context.store, task), context.settings
    if snapshot.has_images:
        need_sight(settings.base_model, settings.storage.models)
    try:
        tokens, no_tokenizer = token_checks(settings.base_model, settings.storage.models), ""
    except BaseModelError as error:
        tokens, no_tokenizer = None, str(error)
    if tokens:
        tokens.need_text(snapshot)
        if context.shortens(tokens.settings.longest):
            tokens.need_room(context.prior())
    background = Background(
        same_type=context.proposal(snapshot).tasks,
        own_hashes=context.order.fingerprints.get(task),
        kept_hashes={digest: hashes for digest, hashes in context.order.fingerprints.items() if digest != task},
        too_long=tokens.too_long if tokens else None,
        reach=tokens.out_of_reach if tokens else None,
        no_tokenizer=no_tokenizer,
    )
    result = validate(snapshot, context.prior(), settings.quality.validation, background)
    html = validation_html(result)
    record = {**result.to_json(), "report": context.put_html(html)}
    failures = [check["name"] for check in record["checks"] if not check["success"]]
    facts: dict[str, MetadataType] = {"failed": failures, "rows_set_aside": len(record["quarantined_rows"])}
    log_metadata({"verdict": record["verdict"], **facts, "not_checked": record["not_checked"]})
    return context.store.put_json(record), HTMLString(html)
