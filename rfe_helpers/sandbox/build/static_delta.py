"""A static delta from nothing: the small objects of a commit in a few files.

A machine that is installed fetches ten thousand objects, and an emulated one works longer on a
request than on what it brings. With this delta a pull takes less than half as long
(docs/deltas.md). `ostree static-delta generate --empty` makes one, too, and works 80 s on it, most
of them on its compression; this takes a second, and stores: the machines are on the same host. The
format is that of ostree-repo-static-delta-private.h in OSTree's sources, in GVariants:

    superblock   the commit object, what the parts are, and which objects are in none of them
    0, 1, …      the parts: modes, extended attributes, the content of files one after the other,
                 and one instruction for each object

A part could be without a compression, but OSTree would map it into memory from its second byte on,
which no kernel does: parts are in the format of xz, which can store, too.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.errors import CommitError

# Larger files stay objects: they would be stored twice, and save few requests.
LARGEST = 64 * 1024
PART_SIZE = 16 * 1024 * 1024
# OSTree's numbers of types of objects, by their suffixes in a repository in archive mode.
_FILE = 1
_KINDS = {".filez": _FILE, ".dirtree": 2, ".dirmeta": 3}
_OPEN_SPLICE_AND_CLOSE = b"S"


def write(repository: Repo, commit: str) -> None:
    """Write the delta of a commit, the only one in `repository` (archive). Clients know it from the
    next summary on. Raises CommitError for a damaged object.

    >>> from rfe_helpers.sandbox.build import static_delta
    >>> repository = Repo("content/repo")  # doctest: +SKIP
    >>> static_delta.write(repository, repository.resolve(ref))  # doctest: +SKIP
    >>> repository.delta(None, repository.resolve(ref)).requests  # doctest: +SKIP
    566
    """
    directory = repository.delta_directory(None, commit)
    directory.mkdir(parents=True)
    part = _Part()
    entries: list[_Value] = []
    loose: list[_Value] = []
    for each in _objects(repository.path / "objects"):
        if each.content is None:
            loose.append(each.fallback())
            continue
        if part.content and len(part.content) + len(each.content) > PART_SIZE:
            entries.append(part.write(directory / str(len(entries))))
            part = _Part()
        part.add(each)
    entries.append(part.write(directory / str(len(entries))))
    path = repository.path / "objects" / commit[:2] / f"{commit[2:]}.commit"
    superblock = _tuple(
        _array([_tuple(_Value(b"ostree.endianness\0"), _Value(b"l\0y", 8))], 8),
        _Value(struct.pack(">Q", int(time.time())), 8, fixed=True),
        _Value(b""),  # from nothing
        _Value(bytes.fromhex(commit)),
        _Value(path.read_bytes(), 8),
        _Value(b""),  # needs no other delta
        _array(entries, 8),
        _array(loose, 8),
    )
    (directory / "superblock").write_bytes(superblock.data)


@dataclass(frozen=True)
class _Object:
    """An object of the repository. `content` is that of a file or link, None of a large one, or the
    object itself; `mode` (owner and mode) and `attributes` are as OSTree stores them."""

    kind: int
    checksum: bytes
    stored: int
    size: int
    content: bytes | None
    mode: bytes = b""
    attributes: bytes = b""

    def fallback(self) -> _Value:
        """Its entry among the objects that are in no part."""
        kind = _Value(bytes([self.kind]), fixed=True)
        return _tuple(kind, _Value(self.checksum), _number(self.stored), _number(self.size))


def _objects(directory: Path) -> Iterator[_Object]:
    """The objects of a repository in archive mode but its commit, in the order of their names."""
    for path in sorted(directory.glob("*/*")):
        if path.suffix not in _KINDS:
            continue
        kind, checksum = _KINDS[path.suffix], bytes.fromhex(path.parent.name + path.stem)
        if kind == _FILE:
            try:
                yield _file(path, checksum)
            except (struct.error, zlib.error, ValueError) as error:
                raise CommitError(
                    f"the object {path.parent.name}{path.name} is damaged: {error}",
                    remedy="remove base-* from the sandbox's cache; the next compose makes it",
                ) from None
        else:
            content = path.read_bytes()
            yield _Object(kind, checksum, len(content), len(content), content)


def _file(path: Path, checksum: bytes) -> _Object:
    """A file or link: the length of its header, the header (tuuuusa(ayay)), and its content as
    raw deflate."""
    stored = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack(">I4x", file.read(8))
        header = file.read(length)
        if len(header) < length:
            raise ValueError("it ends in its header")
        (size, mode) = struct.unpack(">Q8xI4x", header[:24])
        end = header.index(b"\0", 24)  # of the target of a link
        attributes = header[end + 1 : len(header) - _offset_size(len(header))]
        content: bytes | None = None
        if stat.S_ISLNK(mode):
            content = header[24:end]
        elif size <= LARGEST:
            content = zlib.decompress(file.read(), wbits=-zlib.MAX_WBITS)
    return _Object(_FILE, checksum, stored, size, content, header[8:20], attributes)


@dataclass
class _Part:
    """A part in the making. Modes and attributes have numbers, by which instructions name them."""

    modes: dict[bytes, int] = field(default_factory=dict)
    attributes: dict[bytes, int] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    instructions: bytearray = field(default_factory=bytearray)
    objects: bytearray = field(default_factory=bytearray)

    def add(self, each: _Object) -> None:
        content = each.content or b""
        self.instructions += _OPEN_SPLICE_AND_CLOSE
        if each.kind == _FILE:
            self.instructions += _varint(self.modes.setdefault(each.mode, len(self.modes)))
            number = self.attributes.setdefault(each.attributes, len(self.attributes))
            self.instructions += _varint(number)
        self.instructions += _varint(len(content)) + _varint(len(self.content))
        self.objects += bytes([each.kind]) + each.checksum
        self.content += content

    def write(self, path: Path) -> _Value:
        """Write the file of this part; returns its entry in the superblock."""
        payload = self._payload()
        path.write_bytes(payload)
        return _tuple(
            _Value(struct.pack("<I", 0), 4, fixed=True),  # the version of the format
            _Value(hashlib.sha256(payload).digest()),
            _number(len(payload)),
            _number(len(self.content)),
            _Value(bytes(self.objects)),
        )

    def _payload(self) -> bytes:
        """The letter of xz, and (a(uuu)aa(ayay)ayay)."""
        value = _tuple(
            _Value(b"".join(self.modes), 4),
            _array([_Value(each) for each in self.attributes], 1),
            _Value(bytes(self.content)),
            _Value(bytes(self.instructions)),
        )
        return b"x" + stored_xz(value.data)


# GVariant -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Value:
    """A serialized GVariant, little endian, with its alignment; `fixed` if all of its type have the
    same size."""

    data: bytes
    align: int = 1
    fixed: bool = False


def _number(value: int) -> _Value:
    return _Value(struct.pack("<Q", value), 8, fixed=True)


def _tuple(*items: _Value) -> _Value:
    """A tuple: after the items, where those end whose end is not known otherwise, backwards."""
    data, ends = bytearray(), []
    for item in items:
        data += bytes(-len(data) % item.align) + item.data
        ends += [] if item.fixed else [len(data)]
    if not items[-1].fixed:
        ends.pop()
    return _Value(_framed(data, ends[::-1]), max(item.align for item in items))


def _array(items: Iterable[_Value], align: int) -> _Value:
    """An array of items of no fixed size: after them, where each ends."""
    data, ends = bytearray(), []
    for item in items:
        data += bytes(-len(data) % align) + item.data
        ends.append(len(data))
    return _Value(_framed(data, ends), align)


def _framed(data: bytearray, ends: list[int]) -> bytes:
    size = _offset_size(len(data), len(ends))
    return bytes(data) + b"".join(end.to_bytes(size, "little") for end in ends)


def _offset_size(length: int, further: int = 0) -> int:
    """The bytes of an offset in a container of this length, and of so many further offsets."""
    return next(size for size in (1, 2, 4, 8) if length + size * further < 1 << 8 * size)


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


# xz -----------------------------------------------------------------------------------------------

_CHECKSUM_NONE = bytes(2)  # the superblock has one of the whole part
_CHUNK = 64 * 1024  # the longest that LZMA2 stores


def stored_xz(content: bytes) -> bytes:
    """`content` as an xz file (https://tukaani.org/xz/xz-file-format.txt) of one block, whose
    chunks are stored, not compressed.

    >>> import lzma
    >>> from rfe_helpers.sandbox.build import static_delta
    >>> lzma.decompress(static_delta.stored_xz(b"content"))
    b'content'
    """
    # One filter: LZMA2 with one byte of properties, a dictionary of one chunk.
    header = _with_crc(b"\x02\x00\x21\x01\x08\x00\x00\x00")
    block = bytearray(header)
    for start in range(0, len(content), _CHUNK):
        chunk = content[start : start + _CHUNK]
        block += (b"\x02" if start else b"\x01") + struct.pack(">H", len(chunk) - 1) + chunk
    block += b"\0"
    sizes = b"\0\x01" + _varint(len(block)) + _varint(len(content))
    index = _with_crc(sizes + bytes(-len(sizes) % 4))
    footer = struct.pack("<I", len(index) // 4 - 1) + _CHECKSUM_NONE
    return b"".join(
        (
            b"\xfd7zXZ\0" + _with_crc(_CHECKSUM_NONE),
            bytes(block) + bytes(-len(block) % 4),
            index,
            struct.pack("<I", zlib.crc32(footer)) + footer + b"YZ",
        )
    )


def _with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))
