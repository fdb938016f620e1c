"""Scores of one answer against its reference, each a fraction in [0, 1].

Words are lower-cased and end at white space; in scripts that write none between words, a dictionary cuts them
(`components.words`). Scores of such texts therefore depend on the segmentation: see `scored`.
"""

from collections import Counter
from collections.abc import Callable

from components.words import words


def exact_match(text: str, reference: str) -> float:
    """1 when the answer is the reference, apart from surrounding white space."""
    return float(text.strip() == reference.strip())


def token_f1(text: str, reference: str) -> float:
    """Harmonic mean of precision and recall over lower-cased words (SQuAD, Rajpurkar 2016)."""
    ours, theirs = words(text.lower()), words(reference.lower())
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else float(not ours and not theirs)


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of lower-cased words (Lin 2004)."""
    ours, theirs = words(text.lower()), words(reference.lower())
    if not ours or not theirs:
        return float(ours == theirs)
    row = [0] * (len(theirs) + 1)
    for token in ours:
        diagonal = 0
        for j, other in enumerate(theirs, 1):
            diagonal, row[j] = row[j], diagonal + 1 if token == other else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(ours) + len(theirs))


METRICS: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "choice_accuracy": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
}
BINARY = frozenset({"exact_match", "choice_accuracy"})
BY_WORDS = frozenset({"token_f1", "rouge_l"})
