"""Begin a decision record: `make new-decision TITLE="..."`.

It gets the next number and today's date, and is listed at the end of the index, from where its author moves it into a
group. The site shows what the index lists.
"""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

RECORD = """# {number:04d}: {title}

Date: {date:%Y-%m-%d} · Status: proposed

## Context

What was open, and what was measured.

## Decision

What is done, and why not otherwise.

## Consequences

What follows, and what was not done.
"""
UNSORTED = "## Not in a group yet"


def create(folder: Path, title: str, date: datetime) -> Path:
    """Write and list the next record; returns its path."""
    number = max(int(path.name[:4]) for path in folder.glob("[0-9]*.md")) + 1
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    path, index = folder / f"{number:04d}-{slug}.md", folder / "index.md"
    path.write_text(RECORD.format(number=number, title=title, date=date), encoding="utf-8")
    listed = index.read_text(encoding="utf-8").rstrip("\n")
    heading = "" if UNSORTED in listed else f"\n\n{UNSORTED}\n"
    index.write_text(f"{listed}{heading}\n- [{number:04d}]({path.name}) {title}\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    words = " ".join(sys.argv[1:]).split()
    if not words:
        sys.exit('new-decision: no title; make new-decision TITLE="What was decided"')
    print(create(Path(__file__).parent, " ".join(words), datetime.now(UTC)))
