"""Data sets in people's own layouts with random faults: `import` refuses each, or writes what a plain reader finds.

Layouts of GSM8K, Alpaca, ShareGPT, no_robots and MMLU, and CSV as spreadsheets write it, made here; bytes flipped, cut,
repeated, swapped, inserted, and rows edited as values. Also checked: a refusal leaves nothing behind, and no other
exception appears.
"""

import csv
import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.packages.fuzz import VALUES, mutated
from components.tasks.columns import Columns
from components.tasks.conversion import Reading
from components.tasks.importing import import_folder
from components.tasks.problems import PackageError

ROWS = 60
HEAD = {"name": "t", "version": "1", "owner": "o", "description": "d", "licence": "CC0-1.0"}
OWN = Columns()
GSM8K = Columns(None, {"instruction": "question", "output": "answer"})
MMLU = Columns(None, {"instruction": "question", "output": "answer"}, choices=("choices",))
SHEET = Columns("Which mood?", {"input": "text", "output": "label"})


def gsm8k(number: int) -> dict[str, Any]:
    """A question and a worked answer of several lines."""
    return {"question": f"How much is {number} and {number}?", "answer": f"{number}+{number}\n#### {2 * number}"}


def alpaca(number: int) -> dict[str, Any]:
    """The three fields, the input often empty."""
    return {"instruction": f"Name number {number}.", "input": "" if number % 2 else "in words", "output": f"n{number}"}


def sharegpt(number: int) -> dict[str, Any]:
    """A conversation with what other programs write beside it."""
    said = [{"from": "human", "value": f"q {number}"}, {"from": "gpt", "value": f"a {number}"}]
    return {"id": f"x{number}", "conversations": said, "tools": "[]"}


def no_robots(number: int) -> dict[str, Any]:
    """Messages with a prompt and a category beside them."""
    said = [{"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": f"a {number}"}]
    return {"prompt": f"q {number}", "prompt_id": f"{number:064}", "messages": said, "category": "Chat"}


def mmlu(number: int) -> dict[str, Any]:
    """A question with four options and the place of the right one."""
    return {
        "question": f"q {number}",
        "subject": "s",
        "choices": [f"{c}{number}" for c in "wxyz"],
        "answer": number % 4,
    }


def sheet(rows: list[dict[str, Any]]) -> bytes:
    """CSV with a byte order mark, semicolons and CR LF, as spreadsheets write it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";")
    writer.writerow(["text", "label"])
    writer.writerows([f"t {row['instruction']}", row["output"]] for row in rows)
    return text.getvalue().encode("utf-8-sig")


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """The rows as columns."""
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


KINDS = {
    "gsm8k": (gsm8k, lines, "train.jsonl", GSM8K),
    "alpaca": (alpaca, lambda rows: json.dumps(rows, indent=1).encode(), "train.json", OWN),
    "packed": (alpaca, lambda rows: gzip.compress(lines(rows), mtime=0), "train.jsonl.gz", OWN),
    "sharegpt": (sharegpt, lines, "train.jsonl", OWN),
    "no_robots": (no_robots, parquet, "train.parquet", OWN),
    "mmlu": (mmlu, parquet, "train.parquet", MMLU),
    "sheet": (alpaca, sheet, "train.csv", SHEET),
}


def check(dice: random.Random, folder: Path, number: int) -> str:
    """Outcome of one data set."""
    kind = dice.choice(sorted(KINDS))
    make, write, name, columns = KINDS[kind]
    rows = [make(n) for n in range(ROWS)]
    by_value = dice.random() < 0.4 and kind not in ("no_robots", "mmlu")
    if by_value:
        row = dice.choice(rows)
        row[dice.choice((*row, "system", "history", "tools", "output", "messages"))] = dice.choice(VALUES)
    try:
        content = write(rows)
    except (UnicodeEncodeError, pa.ArrowException):  # a value that this format can't hold
        return "not writable"
    source = folder / "set"
    source.mkdir()
    (source / name).write_bytes(content if by_value else mutated(content, dice))
    reading = Reading(repair=dice.random() < 0.2, set_aside=dice.choice((0.01, 0.5)))
    try:
        made = import_folder(source, folder / "made", HEAD, columns, reading)
    except PackageError:
        return "files outside" if (folder / "made").exists() else "refused"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        print(f"data set {number} ({kind}): {type(error).__name__}: {error}")
        return "other exception"
    if reading.repair or name.endswith((".parquet", ".csv")):
        return "accepted"  # what stands there is another text, or no plain reader is at hand
    plain = set(
        _texts(gzip.decompress((source / name).read_bytes()) if name.endswith("gz") else (source / name).read_bytes())
    )
    written = [(row.instruction, row.output) for split in made.package.splits.values() for row in split]
    strange = [row for row in written if not set(row) <= plain]
    if strange:
        print(f"data set {number} ({kind}): {strange[:2]} stands nowhere in it")
    return "changed meaning" if strange else "accepted, same meaning"


def _texts(content: bytes) -> Iterator[str]:
    """All texts, numbers as text, of a file of JSON, with line ends as LF."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    for part in [text] if text.lstrip().startswith("[\n") else text.split("\n"):
        try:
            waiting = [json.loads(part)] if part.strip() else []
        except (ValueError, RecursionError):
            continue
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                yield value.replace("\r\n", "\n").replace("\r", "\n")
            elif isinstance(value, int | float):
                yield json.dumps(value)
            elif isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value
