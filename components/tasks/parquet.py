"""Rows of a Parquet or Arrow file, as they would stand in JSON Lines; a null is an absent field.

Texts are read as dictionaries, so that a small file which repeats one long text many times stays small in memory, and
their sum is limited as if the file were JSON Lines.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from components.tasks.problems import MAX_FILE_BYTES, MAX_LINE_BYTES, MAX_ROWS, Problem, show

BATCH = 256
"""Rows that are unpacked at a time."""
MAX_UNPACKED = 256 * 1024 * 1024
"""Bytes of all columns, as the file's own directory says."""


FAULTS = (pa.ArrowException, OSError, ValueError, ArithmeticError, TypeError, KeyError, NotImplementedError)
"""Exceptions of pyarrow on bytes that are no whole file, and on values that Python's types can't hold."""


def twice_named(names: Sequence[str]) -> str | None:
    """A column name that occurs twice, or None."""
    return next((name for name in names if names.count(name) > 1), None)


def rows(content: bytes, name: str, kind: str = ".parquet") -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """Row numbers, from 1, with their fields; ends with the first problem. `kind` may be `.arrow`."""
    words = {".parquet": "a whole Parquet file", ".arrow": "a whole Arrow file"}[kind]
    try:
        if kind == ".arrow":
            batches, problem = _arrow_batches(content, name)
        else:
            batches, problem = _parquet_batches(content, name)
        if problem:
            yield 1, problem
            return
        number, left = 0, MAX_FILE_BYTES
        for batch in batches:
            batch.validate(full=True)  # places in a dictionary are not checked when they are read
            columns = {field.name: _values(batch.column(place)) for place, field in enumerate(batch.schema)}
            for place in range(batch.num_rows):
                number += 1
                row = {key: _shared(values, place) for key, values in columns.items()}
                left -= sum(len(value) for value in row.values() if isinstance(value, str))
                if left < 0:
                    seen, expected = f"more than {MAX_FILE_BYTES} characters, at row {number}", "a smaller file"
                    yield number, Problem(name, None, None, seen, expected)
                    return
                yield number, {key: value for key, value in row.items() if value is not None}
    except FAULTS as error:
        yield 1, Problem(name, None, None, f"{type(error).__name__}: {show(str(error))}", words)


def class_labels(content: bytes, kind: str = ".parquet") -> dict[str, list[str]]:
    """Names of the classes of each column of class labels, as `datasets` notes them in the schema.

    The note is text from outside: one of another shape names nothing, as does a missing one.
    """
    try:
        source = pa.BufferReader(content)
        schema = pq.read_schema(source) if kind == ".parquet" else _arrow_reader(source).schema
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = note["info"]["features"].items()
    except (*FAULTS, AttributeError, RecursionError):
        return {}
    found = {
        name: feature["names"]
        for name, feature in features
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }
    return {name: names for name, names in found.items() if all(isinstance(each, str) for each in names)}


def _parquet_batches(content: bytes, name: str) -> tuple[Iterable[Any], Problem | None]:
    """Batches of a Parquet file, or why it is not read."""
    file = pq.ParquetFile(pa.BufferReader(content))
    known = file.metadata
    groups = [known.row_group(number) for number in range(known.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if known.num_rows > MAX_ROWS or size > MAX_UNPACKED:
        seen = f"{known.num_rows} rows of {size} bytes"
        return (), Problem(name, None, None, seen, f"at most {MAX_ROWS} rows and {MAX_UNPACKED} bytes")
    if twice := twice_named(file.schema_arrow.names):
        return (), Problem(name, None, twice, "two columns of this name", "each column once")
    texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
    return file.iter_batches(BATCH, use_threads=False), None


def _arrow_batches(content: bytes, name: str) -> tuple[Iterable[Any], Problem | None]:
    """Batches of an Arrow stream, as `datasets` writes it, or of an Arrow file."""
    table = _arrow_reader(pa.BufferReader(content)).read_all()
    if twice := twice_named(table.schema.names):
        return (), Problem(name, None, twice, "two columns of this name", "each column once")
    return table.to_batches(BATCH), None


def _arrow_reader(source: pa.BufferReader) -> Any:  # noqa: ANN401 - a reader of pyarrow
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source)


Values = tuple[list[Any], Any]
"""Distinct values, and each row's place among them (None: the values are the rows')."""


def _values(column: Any) -> Values:  # noqa: ANN401 - pyarrow's Array
    if not pa.types.is_dictionary(column.type):
        return column.to_pylist(), None
    distinct = column.dictionary.to_pylist()
    for text in distinct:
        if len(text) > MAX_LINE_BYTES:
            raise ValueError(f"a text of {len(text)} characters, expected at most {MAX_LINE_BYTES}")
    return distinct, column.indices.to_pylist()


def _shared(values: Values, place: int) -> Any:  # noqa: ANN401 - any JSON value
    distinct, places = values
    if places is None:
        return _without_nulls(distinct[place])
    return None if places[place] is None else distinct[places[place]]


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Arrow writes every field of a struct; those that were absent are null."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
