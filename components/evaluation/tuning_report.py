"""The tuning report: loss, beta and what was trained on what."""

import base64
from collections.abc import Mapping
from typing import Any

from components.evaluation.reports import beta_png, loss_png
from components.pages import fragment, page

_BODY = """
<p>Rule <b>{{ r.rule }}</b>{% if r.rule == "none" %}: {{ plain }}{% endif %}.
{{ r.rows }} rows of the task, {{ r.rehearsed_rows }} kept rows of earlier tasks rehearsed,
{{ r.losses|length }} optimizer steps. Loss {{ "%.3f"|format(r.losses[0]) }} at the first step,
{{ "%.3f"|format(tail) }} over the last ten. Points kept on the stability-plasticity curve: {{ r.points|join(", ") }}.
{% if r.rule in ("paper", "released", "scale_free") %}Fallback share {{ "%.1f"|format(100 * r.fallback_share) }} %.
{% endif %}</p>
{% for caption, picture in pictures %}
<figure><img alt="{{ caption }}"
 src="data:image/png;base64,{{ picture }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
"""
_PLAIN = "this tuning had no earlier task of its group to protect, or protection was switched off"


def tuning_pictures(record: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG pictures of a tuning record by name: `loss`, and `beta` where an EMA ran."""
    pictures = {"loss": loss_png(record["losses"])}
    history = record["history"]
    if history["beta_median"]:
        band = zip(history["beta_low"], history["beta_median"], history["beta_high"], strict=True)
        pictures["beta"] = beta_png([(step, *values) for step, values in enumerate(band, 1)])
    return pictures


def tuning_html(record: Mapping[str, Any]) -> str:
    """Self-contained page of a tuning record."""
    captions = {"loss": "Loss per optimizer step", "beta": "Beta of the dynamic EMA over the adapter's tensors"}
    pictures = [(captions[k], base64.b64encode(v).decode()) for k, v in tuning_pictures(record).items()]
    last = record["losses"][-10:]
    body = fragment(_BODY, r=record, plain=_PLAIN, tail=sum(last) / len(last), pictures=pictures)
    return page("Tuning", body)
