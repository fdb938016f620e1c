"""Rows of a Parquet or Arrow file, as they would stand in JSON Lines; a null is an absent field.

Texts and bytes, at any depth, are read as dictionaries, so that a small file that repeats one long text many times
stays small in memory. For every Arrow type, the size that a few rows would have as Python values is added up before
these values are built, and the sum is limited as if the file were JSON Lines.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from components.tasks.problems import MAX_FILE_BYTES, MAX_LINE_BYTES, MAX_ROWS, Problem, show
from components.tasks.records import twice_named

BATCH = 256
"""Rows that are unpacked at a time."""
FEW = 16
"""The same for delta-encoded texts (each written as its difference to the one before), which no dictionary keeps
small."""
MAX_UNPACKED = 256 * 1024 * 1024
"""Most bytes of all columns, by the file's own directory."""
MAX_VALUES = 50_000_000
"""Most values of all columns, nulls and empty lists included."""
MAX_COLUMNS = 2000

FAULTS = (pa.ArrowException, OSError, ValueError, ArithmeticError, TypeError, KeyError, NotImplementedError)
"""Exceptions of pyarrow on bytes that are no complete file, and on values that Python's types can't hold."""


def rows(content: bytes, name: str, kind: str = ".parquet") -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """Row numbers, from 1, with their fields; stops at the first problem. `kind` is `.parquet` or `.arrow`."""
    words = {".parquet": "a whole Parquet file", ".arrow": "a whole Arrow file"}[kind]
    try:
        if kind == ".arrow":
            batches, problem = _arrow_batches(content, name)
        else:
            batches, problem = _parquet_batches(content, name)
        if problem:
            yield 1, problem
            return
        number, remaining, values = 0, MAX_FILE_BYTES, MAX_VALUES
        for batch in batches:
            batch.validate(full=True)  # pyarrow doesn't check indices into a dictionary when it reads them
            size = sum((_weight(column) for column in batch.columns if not _is_shared(column.type)), _Weight())
            remaining, values = remaining - size.bytes, values - size.values
            if remaining < 0 or values < 0:
                most = f"{MAX_FILE_BYTES} characters" if remaining < 0 else f"{MAX_VALUES} values"
                yield number + 1, Problem(name, None, None, f"more than {most}, at row {number + 1}", "a smaller file")
                return
            columns = {field.name: _values(batch.column(index)) for index, field in enumerate(batch.schema)}
            with_dictionary = [field.name for field in batch.schema if _is_shared(field.type)]
            for index in range(batch.num_rows):
                number += 1
                row = {key: _value_at(values, index) for key, values in columns.items()}
                remaining -= sum(len(row[key]) for key in with_dictionary if row[key] is not None)
                if remaining < 0:
                    actual, rule = f"more than {MAX_FILE_BYTES} characters, at row {number}", "a smaller file"
                    yield number, Problem(name, None, None, actual, rule)
                    return
                yield number, {key: value for key, value in row.items() if value is not None}
    except MemoryError:
        raise
    except FAULTS as error:
        yield 1, Problem(name, None, None, f"{type(error).__name__}: {show(str(error))}", words)


def class_labels(content: bytes, kind: str = ".parquet") -> dict[str, list[str]]:
    """Class names of each column of class labels, from the note that `datasets` leaves in the schema.

    The note is text from outside: if it is missing or of another shape, there are no names.
    """
    try:
        source = pa.BufferReader(content)
        schema = pq.read_schema(source) if kind == ".parquet" else _arrow_reader(source).schema
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = note["info"]["features"].items()
    except (*FAULTS, AttributeError, RecursionError):
        return {}
    lists = {
        name: feature["names"]
        for name, feature in features
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }
    return {name: names for name, names in lists.items() if all(isinstance(each, str) for each in names)}


def _parquet_batches(content: bytes, name: str) -> tuple[Iterable[Any], Problem | None]:
    """Batches of a Parquet file, or the problem that forbids reading it."""
    file = pq.ParquetFile(pa.BufferReader(content))
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if metadata.num_rows > MAX_ROWS or size > MAX_UNPACKED:
        actual = f"{metadata.num_rows} rows of {size} bytes"
        return (), Problem(name, None, None, actual, f"at most {MAX_ROWS} rows and {MAX_UNPACKED} bytes")
    if metadata.num_columns > MAX_COLUMNS:
        return (), Problem(name, None, None, f"{metadata.num_columns} columns", f"at most {MAX_COLUMNS}")
    if twice := twice_named(file.schema_arrow.names):
        return (), Problem(name, None, twice, "two columns of this name", "each column once")
    chunks = [group.column(index) for group in groups for index in range(metadata.num_columns)]
    columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    values = sum(chunk.num_values for chunk in chunks)
    widest = max((column.length for column in columns), default=0)  # fixed-width values can repeat at no cost
    if values > MAX_VALUES or widest * BATCH > MAX_UNPACKED:
        actual = f"{values} values, the widest of {max(widest, 0)} bytes"
        return (), Problem(name, None, None, actual, f"at most {MAX_VALUES} values, and {MAX_UNPACKED // BATCH} bytes")
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    few = any("DELTA_BYTE_ARRAY" in chunk.encodings for chunk in chunks)
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
    return file.iter_batches(FEW if few else BATCH, use_threads=False), None


def _arrow_batches(content: bytes, name: str) -> tuple[Iterable[Any], Problem | None]:
    """Batches of an Arrow stream, as `datasets` writes it, or of an Arrow file."""
    reader = _arrow_reader(pa.BufferReader(content))
    if twice := twice_named(reader.schema.names):
        return (), Problem(name, None, twice, "two columns of this name", "each column once")
    return _slices(reader), None


def _slices(reader: Any) -> Iterator[Any]:  # noqa: ANN401 - a reader of pyarrow
    """A few rows at a time; each batch is checked before it is cut."""
    whole = (
        reader
        if isinstance(reader, pa.ipc.RecordBatchStreamReader)
        else map(reader.get_batch, range(reader.num_record_batches))
    )
    for batch in whole:
        batch.validate(full=True)
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _arrow_reader(source: pa.BufferReader) -> Any:  # noqa: ANN401 - a reader of pyarrow
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source)


@dataclass(frozen=True)
class _Weight:
    """Size of Arrow's values as Python's: bytes of texts, and number of values."""

    bytes: int = 0
    values: int = 0

    def __add__(self, other: "_Weight") -> "_Weight":
        return _Weight(self.bytes + other.bytes, self.values + other.values)


def _weight(column: Any) -> _Weight:  # noqa: ANN401 - pyarrow's Array
    """Size of an array's values, computed without building them.

    Raises:
        ValueError: a type that data sets don't use.
    """
    kind, own = column.type, _Weight(_own_bytes(column) or 0, len(column))
    if pa.types.is_fixed_size_list(kind) and kind.list_size * len(column) > MAX_VALUES:  # takes no room in the file
        return own + _Weight(0, kind.list_size * len(column))
    return sum(map(_weight, _inner(column)), own)


def _own_bytes(column: Any) -> int | None:  # noqa: ANN401 - pyarrow's Array
    """Bytes of an array's texts; None for one of other values."""
    kind = column.type
    if _is_shared(kind):
        return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width) * len(column)
    return _length(column) if _has_length(kind) else None


def _inner(column: Any) -> list[Any]:  # noqa: ANN401 - pyarrow's Array
    """The arrays that a nested array is made of; none for one of plain values."""
    kind = column.type
    if pa.types.is_struct(kind):
        return list(column.flatten())
    if pa.types.is_map(kind):
        return [column.keys, column.items]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [column.flatten()]
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if _has_length(value) or any(is_kind(value) for is_kind in PLAIN):
        return []
    raise ValueError(f"a column of type {kind}, expected texts, numbers, dates, lists and structs")


PLAIN = (pa.types.is_primitive, pa.types.is_null, pa.types.is_decimal, pa.types.is_fixed_size_binary)


def _has_length(kind: Any) -> bool:  # noqa: ANN401 - pyarrow's DataType
    """True for texts and bytes of any length."""
    names = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return str(kind) in names


def _length(texts: Any) -> int:  # noqa: ANN401 - pyarrow's Array
    """Bytes of all texts together, repeated ones counted each time."""
    if str(texts.type).endswith("_view"):  # a view takes 16 bytes, the first four are the length
        views = np.frombuffer(texts.buffers()[1], "<i4")[::4][texts.offset : texts.offset + len(texts)]
        return int(views.clip(min=0).sum(dtype=np.int64))
    return int(pc.sum(pc.binary_length(texts)).as_py() or 0)


def _is_shared(kind: Any) -> bool:  # noqa: ANN401 - pyarrow's DataType
    """True for a column whose rows share the values of a dictionary of texts."""
    return bool(pa.types.is_dictionary(kind) and _has_length(kind.value_type))


Values = tuple[list[Any], Any]
"""Distinct values, and each row's place among them (None: the values are the rows')."""


def _values(column: Any) -> Values:  # noqa: ANN401 - pyarrow's Array
    if not _is_shared(column.type):
        return column.to_pylist(), None
    distinct = column.dictionary.to_pylist()
    for text in distinct:
        if isinstance(text, str) and len(text) > MAX_LINE_BYTES:
            raise ValueError(f"a text of {len(text)} characters, expected at most {MAX_LINE_BYTES}")
    return distinct, column.indices.to_pylist()


def _value_at(values: Values, index: int) -> Any:  # noqa: ANN401 - any JSON value
    distinct, places = values
    if places is None:
        return _without_nulls(distinct[index])
    return None if places[index] is None else distinct[places[index]]


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """The value without null fields: Arrow writes every field of a struct, absent ones as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
