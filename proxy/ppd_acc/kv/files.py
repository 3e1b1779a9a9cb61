"""Reads KV dumps: `.npz` (our connector's, the published tool's, any arrays) and `.safetensors`.

Tensors are read piece by piece at their place in the file; one with the tokens first, and a `.npz` member that is
compressed or in Fortran order, is read whole when its turn comes. bf16 and fp8 stand in `.npz` as raw uint16 and uint8.
Metadata (JSON in the array or header field `metadata`) may say dtype, block_size and token_ids.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Annotated, Any, BinaryIO, Literal, get_args

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ppd_accuracy.kv import elements
from ppd_accuracy.kv.elements import BF16, FP64, ElementType, Raw
from ppd_accuracy.kv.rows import PIECE

Layout = Literal["heads-tokens", "tokens-heads"]
"""The axes of arrays with three: (heads, tokens, channels), or (tokens, heads, channels)."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_SAFETENSORS: Mapping[str, str] = MappingProxyType(
    {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
        "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1",
    }
)  # fmt: skip
_DECLARING = ("BF16", "F8_E4M3", "F8_E5M2")
_LONGEST_HEADER = 100_000_000
_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Tensor(msgspec.Struct):
    """A tensor in a safetensors header. The format's own library tells no place to read a piece from, and maps the
    file, so that one cut short meanwhile would end the process."""

    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


class KvFileError(Exception):
    """The file cannot be read as a KV dump; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One array of a file. `dtype` is numpy's; `element` what its numbers are, None where it is no array of numbers.
    `load` gives its elements; `offset` is where they start in the file, None where they must be loaded whole.
    `is_tokens_first` is of (tokens, heads, channels)."""

    name: str
    stored_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    element: ElementType | None
    type_name: str
    offset: int | None
    load: Callable[[], NDArray[Any]] | None = None
    is_tokens_first: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(heads, tokens, channels): dimensions before these count as heads, missing ones as 1."""
        if self.is_tokens_first:
            return self.stored_shape[1], self.stored_shape[0], self.stored_shape[2]
        if len(self.stored_shape) < 2:
            return 1, 1, math.prod(self.stored_shape)
        *heads, tokens, channels = self.stored_shape
        return math.prod(heads), tokens, channels


class StoredTensor:
    """A tensor that stays in its file. What `read` returns is valid until the next read."""

    def __init__(self, entry: Entry, element: ElementType, file: BinaryIO | None, path: Path) -> None:
        self.shape = entry.shape
        self.element = element
        self._dtype = entry.dtype
        self._path = path
        self._file = file
        self._offset = entry.offset or 0
        self._buffer = bytearray()
        self._values: NDArray[Any] | None = None
        if entry.offset is None and entry.load is not None:
            values = entry.load()
            self._values = np.ascontiguousarray(values.transpose(1, 0, 2) if entry.is_tokens_first else values)
        elif entry.is_tokens_first:
            self._values = self._heads_first()
        if self._values is not None:
            self._values = self._values.reshape(-1)

    def read(self, start: int, stop: int) -> Raw:
        if self._values is not None:
            return _raw(self._values[start:stop], self.element)
        return _raw(self._stored(start, stop), self.element)

    def _heads_first(self) -> NDArray[Any]:
        heads, tokens, channels = self.shape
        turned = np.empty(self.shape, self._dtype)
        width = heads * channels
        step = max(1, PIECE // max(1, width))
        for first in range(0, tokens, step):
            last = min(first + step, tokens)
            some = self._stored(first * width, last * width).reshape(last - first, heads, channels)
            turned[:, first:last] = some.transpose(1, 0, 2)
        return turned

    def _stored(self, start: int, stop: int) -> NDArray[Any]:
        """Elements in the order of the file."""
        size = (stop - start) * self._dtype.itemsize
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        assert self._file is not None
        done = 0
        while done < size:
            place = self._offset + start * self._dtype.itemsize + done
            got = os.preadv(self._file.fileno(), [view[done:]], place)
            if not got:
                raise KvFileError(f"{self._path} ends in the middle of an array; it is truncated")
            done += got
        return np.frombuffer(view, self._dtype)


def _raw(values: NDArray[Any], element: ElementType) -> Raw:
    """Raw integers of the element type; whole numbers become fp64."""
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    is_raw = values.dtype.kind == "u" and element.bytes <= 2
    if values.dtype.itemsize == element.bytes and (is_raw or values.dtype.kind == "f"):
        return values.view(element.raw_type)
    return values.astype(np.float64).view(np.uint64)


class KvFile:
    """An open dump: `entries` by name, in the file's order. Close it, or use it in a `with`."""

    def __init__(self, path: Path, dtype: ElementType | None = None, layout: Layout = "heads-tokens") -> None:
        """`dtype` is what raw integers are where the file does not say. Raises KvFileError."""
        self.path = path
        self.notes: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.format = ""
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise KvFileError(f"{path}: {error.strerror or error}") from None
        try:
            entries = self._entries(dtype)
        except BaseException:
            self._file.close()
            raise
        is_tokens_first = layout == "tokens-heads"
        self.entries = {
            name: replace(entry, is_tokens_first=is_tokens_first and len(entry.stored_shape) == 3)
            for name, entry in entries.items()
        }

    def __enter__(self) -> KvFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()

    @property
    def declared(self) -> ElementType | None:
        """The element type that the metadata names; None where it names none."""
        name = self.metadata.get("dtype")
        try:
            return elements.element_type(name) if isinstance(name, str) else None
        except ValueError:
            return None

    @property
    def block_size(self) -> int | None:
        size = self.metadata.get("block_size")
        return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None

    @property
    def token_ids(self) -> list[Any] | None:
        ids = self.metadata.get("token_ids")
        return ids if isinstance(ids, list) else None

    def open(self, name: str) -> StoredTensor:
        """The tensor; one with an element type only. Raises KvFileError where its data cannot be read."""
        entry = self.entries[name]
        assert entry.element is not None
        try:
            return StoredTensor(entry, entry.element, self._file, self.path)
        except _UNREADABLE as error:
            raise KvFileError(f"{self.path}: array {name!r} cannot be read: {error}") from None

    def _entries(self, dtype: ElementType | None) -> dict[str, Entry]:
        start = self._file.read(9)
        try:
            if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                self.format = "npz"
                return self._npz(dtype)
            if len(start) == 9 and start[8:9] == b"{":
                self.format = "safetensors"
                return self._safetensors(dtype)
        except _UNREADABLE as error:
            raise KvFileError(f"{self.path} cannot be read as .{self.format}: {error}") from None
        what = "it is empty" if not start else "it begins like neither"
        raise KvFileError(f"{self.path} is no .npz and no .safetensors file: {what}")

    def _npz(self, dtype: ElementType | None) -> dict[str, Entry]:
        size = os.fstat(self._file.fileno()).st_size
        arrays = {}
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in arrays:
                    raise KvFileError(f"{self.path} holds two arrays named {name!r}")
                arrays[name] = self._member(archive, info, size)
        texts = [name for name, entry in arrays.items() if entry.dtype.kind in "US" and not entry.stored_shape]
        for name in texts:
            entry = arrays.pop(name)
            if name == "metadata" and entry.load is not None:
                self._take_metadata(entry.load()[()])
            else:
                self.notes.append(f"{self.path}: {name!r} is a text, not compared")
        return {name: _typed(entry, self.declared, dtype) for name, entry in arrays.items()}

    def _member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, file_size: int) -> Entry:
        name = info.filename.removesuffix(".npy")
        with archive.open(info) as member:
            version = npy.read_magic(member)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read_header(member)
            header_size = member.tell()
        if dtype.hasobject:
            raise KvFileError(f"{self.path}: array {name!r} holds Python objects; only numbers are read")
        wanted = header_size + math.prod(shape) * dtype.itemsize
        if info.file_size != wanted:
            raise KvFileError(f"{self.path}: array {name!r} has {info.file_size} bytes, its shape needs {wanted}")
        offset = None
        is_text = dtype.kind in "US"
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1 and not is_text:
            if not is_fortran or len(shape) < 2:
                offset = self._data_offset(info) + header_size
                if offset + wanted - header_size > file_size:
                    raise KvFileError(f"{self.path} ends in the middle of array {name!r}; it is truncated")

        def load() -> NDArray[Any]:
            with zipfile.ZipFile(self.path) as again, again.open(info) as data:
                values: NDArray[Any] = npy.read_array(data, allow_pickle=False)
                data.read(1)  # the checksum is looked at where the member ends
                return values

        return Entry(
            name=name, stored_shape=shape, dtype=dtype, element=None, type_name=str(dtype), offset=offset, load=load
        )

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        """Where a stored member's bytes begin: behind its local header, whose extra field may differ from the index."""
        local = os.pread(self._file.fileno(), 30, info.header_offset)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise KvFileError(f"{self.path}: member {info.filename!r} has no local header; the file is damaged")
        name_size, extra_size = struct.unpack("<HH", local[26:30])
        return int(info.header_offset) + 30 + int(name_size) + int(extra_size)

    def _safetensors(self, dtype: ElementType | None) -> dict[str, Entry]:
        size = os.fstat(self._file.fileno()).st_size
        (length,) = struct.unpack("<Q", os.pread(self._file.fileno(), 8, 0))
        if length > min(_LONGEST_HEADER, size - 8):
            raise KvFileError(f"{self.path}: its header says {length} bytes, the file has {size}; it is truncated")
        header = json.loads(os.pread(self._file.fileno(), length, 8))
        if not isinstance(header, dict):
            raise KvFileError(f"{self.path}: its header is no JSON object")
        self._take_safetensors_metadata(header.pop("__metadata__", {}))
        tensors = {}
        for name, about in header.items():
            entry = self._safetensor(name, about, 8 + length, size)
            is_declared = about["dtype"] in _DECLARING
            tensors[name] = entry if is_declared else _typed(entry, self.declared, dtype)
        return tensors

    def _safetensor(self, name: str, header: Any, data_start: int, file_size: int) -> Entry:
        try:
            about = msgspec.convert(header, _Tensor)
        except msgspec.ValidationError:
            raise KvFileError(f"{self.path}: tensor {name!r} needs dtype, shape and data_offsets") from None
        kind, shape, (start, stop) = about.dtype, about.shape, about.data_offsets
        if kind not in _SAFETENSORS:
            raise KvFileError(f"{self.path}: tensor {name!r} has dtype {kind}; known are {', '.join(_SAFETENSORS)}")
        dtype = np.dtype(_SAFETENSORS[kind])
        if stop - start != math.prod(shape) * dtype.itemsize:
            raise KvFileError(f"{self.path}: tensor {name!r} has {stop - start} bytes, its shape {shape} needs others")
        if data_start + stop > file_size:
            raise KvFileError(f"{self.path} ends in the middle of tensor {name!r}; it is truncated")
        element = elements.element_type(kind) if kind in _DECLARING else None
        return Entry(
            name=name, stored_shape=shape, dtype=dtype, element=element, type_name=kind, offset=data_start + start
        )

    def _take_safetensors_metadata(self, given: Any) -> None:
        for name, text in given.items() if isinstance(given, dict) else ():
            if name == "metadata":
                self._take_metadata(text)
                continue
            try:
                self.metadata.setdefault(name, json.loads(text))
            except (TypeError, ValueError):
                self.metadata.setdefault(name, text)

    def _take_metadata(self, text: Any) -> None:
        try:
            metadata = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            metadata = None
        if isinstance(metadata, dict):
            self.metadata.update(metadata)
        else:
            self.notes.append(f"{self.path}: metadata is no JSON object; it is not used")


_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError,
    NotImplementedError, RecursionError, SyntaxError, MemoryError, zlib.error,
)  # fmt: skip


def _typed(entry: Entry, declared: ElementType | None, given: ElementType | None) -> Entry:
    """With its element type: floating-point arrays have their own, raw integers are what flag or metadata say, else
    bf16 (uint16) and e4m3 (uint8); other whole numbers count as fp64."""
    dtype, element = entry.dtype, None
    if dtype.kind == "f" and dtype.itemsize in (2, 4, 8):
        element = elements.element_type(f"float{8 * dtype.itemsize}")
    elif dtype.kind == "u" and dtype.itemsize in (1, 2):
        raw = BF16 if dtype.itemsize == 2 else elements.FP8_E4M3
        element = next((each for each in (given, declared) if each and each.bytes == dtype.itemsize), raw)
    elif dtype.kind in "iubf":
        element = FP64
    return replace(entry, element=element)


def mismatch_of(one: Sequence[Any] | None, other: Sequence[Any] | None) -> int | None:
    """First position where two lists of token ids differ; None where they agree or one is not known."""
    if one is None or other is None or one == other:
        return None
    pairs = zip(one, other, strict=False)
    return next((place for place, (first, second) in enumerate(pairs) if first != second), min(len(one), len(other)))
