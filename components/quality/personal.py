"""Probable personal data in texts: e-mail addresses, phone numbers, payment cards; shown only masked.

Patterns find look-alikes, so this warns and never refuses. A card number has to pass Luhn's check (ISO/IEC 7812-1), a
phone number needs digits in groups, as people write them.

Texts come from outside, so the work must be linear in their length: from each start a pattern can match only so many
characters, or no two starts match the same characters.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from components.words import is_unspaced, without_unspaced

_LOCAL = re.compile(r"[A-Za-z0-9._%+-]*")
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-]?\d)")
_PHONE = re.compile(
    r"(?<![\w.+/:-])(?:"
    r"(?:\+|00)\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}"  # with a country code
    r"|\(\d{2,4}\)[ .-]?\d{3,4}[ .-]?\d{3,4}"  # (030) 1234 567
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"  # 555-123-4567
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{2,4}"  # 0301 234 567
    r")(?![\w/:]|[.-]\d)"
)
_MAYBE = re.compile(r"[@\uff20]|\d{3}")
"""Part of every finding: most rows fail this quick search and need no other."""


@dataclass(frozen=True)
class PersonalDatum:
    """Place of probable personal data in a text."""

    kind: str
    mask: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.kind} {self.mask}"


def personal_data(text: str) -> list[str]:
    """Masked findings in a text, such as `card ****1111`, in the order of their kinds; empty if there are none."""
    if not _MAYBE.search(text):
        return []
    return [str(finding) for finding in _findings(without_unspaced(text))]


def mask_personal_data(text: str) -> str:
    """A text with its findings replaced by their masks; one whose findings can't be placed is not repeated at all."""
    if not _MAYBE.search(text):
        return text
    whole = unicodedata.normalize("NFKC", text) if is_unspaced(text) else text
    bare = without_unspaced(whole)
    if len(bare) != len(whole):
        return "[a text that can't be masked]"
    last = len(whole)
    for finding in sorted(_findings(bare), key=lambda each: each.start, reverse=True):
        if finding.end <= last:  # overlapping ones are covered by the later one, up to its beginning
            whole = f"{whole[: finding.start]}[{finding}]{whole[finding.end :]}"
        else:
            whole = f"{whole[: finding.start]}[{finding}]{whole[last:]}"
        last = finding.start
    return whole


def _findings(text: str) -> Iterator[PersonalDatum]:
    for name, domain, start, end in _addresses(text):
        yield PersonalDatum("e-mail", f"{name[0]}***@***.{domain.rpartition('.')[2]}", start, end)
    cards = [(match, _digits(match[0])) for match in _CARD.finditer(text)]
    card_spans = [match.span() for match, digits in cards if luhn(digits)]
    for match, digits in cards:
        if match.span() in card_spans:
            yield PersonalDatum("card", f"****{digits[-4:]}", *match.span())
    for match in _PHONE.finditer(text):
        digits = _digits(match[0])
        inside = any(begin < match.end() and match.start() < end for begin, end in card_spans)
        if 7 <= len(digits) <= 15 and not inside:
            yield PersonalDatum("phone", f"****{digits[-2:]}", *match.span())


def _addresses(text: str) -> Iterator[tuple[str, str, int, int]]:
    """Local part, domain, start and end of e-mail addresses: from each `@` back to the last one's end, then forward.

    One pattern over the whole address would backtrack from every start: quadratic in a long run of letters.
    """
    backwards, past = text[::-1], 0
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.match(backwards, len(text) - at, len(text) - past)
        domain = _DOMAIN.match(text, at + 1)
        past = at + 1
        if local and local[0] and domain:
            yield local[0][::-1], domain[0], at - len(local[0]), domain.end()
            past = domain.end()
        at = text.find("@", past)


def luhn(digits: str) -> bool:
    """True if the last digit is Luhn's check digit of the others; one digit over and over is no card."""
    doubles = [int(digit) * 2 for digit in reversed(digits[:-1])]
    total = int(digits[-1])
    for place, value in enumerate(doubles):
        total += (value - 9 if value > 9 else value) if place % 2 == 0 else value // 2
    return total % 10 == 0 and len(set(digits)) > 1


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())
