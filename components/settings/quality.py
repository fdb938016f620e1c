"""Settings of the checks on a task's data."""

from typing import Annotated

from pydantic import Field

from components.settings.section import Fraction, Section


class DriftSettings(Section):
    """Verdict bounds of the drift check, as effect sizes."""

    known_auc: Annotated[float, Field(ge=0.5, le=1)] = 0.65
    """AUC of the two-sample classifier against the nearest prior task, below which a task counts as known."""
    related_auc: Annotated[float, Field(ge=0.5, le=1)] = 0.90
    """AUC of the inputs alone, below which a task counts as related."""
    related_similarity: Fraction = 0.42
    """Similarity of the instructions at or above which a task counts as related; else it is new."""
    extreme_length_ratio: Annotated[float, Field(gt=1)] = 10.0
    """Factor by which the median input is longer or shorter than in all earlier tasks, from which a task is held."""
    extreme_foreign_share: Fraction = 0.5
    """Share of letters in scripts of no earlier task, from which a task is held."""
    extreme_surprise: Annotated[float, Field(gt=1)] = 2.0
    """Factor by which the base model needs more bits a character for the task's questions than for those it is compared
    with, from which a task is held."""
    model_rows: Annotated[int, Field(ge=0)] = 32
    """Rows a side that the base model reads for `extreme_surprise`; 0 leaves it out."""


class KnownSettings(Section):
    """Tasks that need no training: the champion does them already, shown on their validation rows."""

    rows: Annotated[int, Field(ge=0)] = 100
    """Validation rows that the champion predicts at assessment; 0 leaves this out, and every task is learnt."""
    margin: Fraction = 0.10
    """Tasks without a target: distance by which the champion's score may stay below that on the task it resembles; more
    is excluded with 95 % confidence."""
    force: bool = False
    """True learns known tasks all the same, and keeps the finding as a reason."""


class ValidationSettings(Section):
    """Bounds of the data checks."""

    min_rows: Annotated[int, Field(ge=1)] = 20
    """Least number of rows per split."""
    max_leak: Fraction = 0.01
    """Largest share of test rows that may occur in this or an earlier task's training rows; they are quarantined."""
    max_duplicates: Fraction = 0.05
    """Share of duplicate training rows that warns."""
    max_characters: Annotated[int, Field(ge=1)] = 4000
    """Longest instruction, input or output, in characters."""
    max_near_duplicates: Fraction = 0.02
    """Share of rows that nearly repeat another row of the task, above which there is a warning."""
    max_too_long: Fraction = 0.01
    """Largest share of rows beyond base_model.max_tokens; they are quarantined."""
    max_unreachable: Fraction = 0.01
    """Largest share of a split's answers that the task's decoding, choices or metric rule out."""
    min_label_share: Fraction = 0.2
    """Training share of a label, relative to an even split, below which there is a warning."""


class QualitySettings(Section):
    """Data validation and drift."""

    validation: ValidationSettings = ValidationSettings()
    drift: DriftSettings = DriftSettings()
    known: KnownSettings = KnownSettings()
