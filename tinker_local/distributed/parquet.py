"""The output of a job as a Parquet file, made of its JSON lines once these are complete."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.files.whole_file import sync, whole_path
from tinker_local.batch.output import refusal
from tinker_local.errors import BadRequestError

_GROUP = 32 << 20  # bytes of JSON in one row group: what is in memory at a time


def write_parquet(lines: Path, output: Path) -> None:
    """Write the JSON lines of an output as rows; the file appears when it is whole and on the disk.

    A first pass finds the columns, a second one writes them. Texts stay texts, also those that look like
    dates.

    Raises:
        BadRequestError: a key has values of kinds that one column cannot have, or the disk is full.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        plain = [_with_texts(pa, pa.schema(_table(group).schema)) for group in _groups(lines)]
        schema = pa.unify_schemas(plain, promote_options="permissive")
        with whole_path(output) as partial, parquet.ParquetWriter(partial, schema) as writer:
            for group in _groups(lines):
                writer.write_table(_table(group, schema))
        sync(output.parent)
    except pa.ArrowException as error:
        raise BadRequestError(
            f"{lines} cannot be written as Parquet: {error}; give keys of one kind, or take the JSON lines"
        ) from None
    except OSError as error:
        raise refusal(output, error) from error


def _groups(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while lines := file.readlines(_GROUP):
            yield b"".join(lines)


def _table(group: bytes, schema: Any = None) -> Any:
    from pyarrow import json

    read = json.ReadOptions(use_threads=False, block_size=len(group) + 1)
    parse = json.ParseOptions(
        explicit_schema=schema, unexpected_field_behavior="error" if schema else "infer"
    )
    return json.read_json(io.BytesIO(group), read_options=read, parse_options=parse)


def _with_texts(pa: Any, kind: Any) -> Any:
    """Return a schema or a type with texts where pyarrow took texts for points in time."""
    if isinstance(kind, pa.Schema):
        return pa.schema([pa.field(each.name, _with_texts(pa, each.type)) for each in kind])
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_with_texts(pa, kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(each.name, _with_texts(pa, each.type)) for each in kind])
    return kind
