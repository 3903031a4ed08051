"""The settings of a room, from a TOML file such as

    seats = 20                  # or names = ["anna", "ben"]
    memory = "4 GiB"            # of each seat
    processors = 2
    disk = "20 GiB"
    address = "0.0.0.0"         # where the room is served; loopback if it is not given
    certificate = "room.pem"    # one of its own is made otherwise
    key = "room.key"

docs/trainers.md says more of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.errors import InputError

DEFAULT = "~/rfe-room"  # the directory of a room
TRAINER = "trainer"
# Of a seat: also the name of its volume, and of its account.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?) ?([MGT])(?:iB|B)?")
_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
_LEAST_MEMORY, _LEAST_DISK = 1 << 30, 4 << 30
_LONGEST = 100_000  # bytes of the file


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a room.toml says. `engine` is what a seat is: a container of the workbook's image, or
    an account of this machine, without limits.

    >>> from rfe_helpers.room import Settings
    >>> Settings(seats=2, memory="6 GiB").people
    ('seat-01', 'seat-02')
    """

    seats: Annotated[int, msgspec.Meta(ge=1, le=500)] = 3
    names: tuple[str, ...] = ()
    engine: Literal["containers", "accounts"] = "containers"
    image: str = "localhost/rfe-workbook"
    memory: str = "4 GiB"
    processors: Annotated[float, msgspec.Meta(gt=0, le=1024)] = 2.0
    disk: str = "20 GiB"
    address: str = LOOPBACK
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8443
    certificate: str = ""
    key: str = ""

    @property
    def people(self) -> tuple[str, ...]:
        """The names of the seats: those that were given, or seat-01, seat-02, …"""
        return self.names or tuple(f"seat-{number:02}" for number in range(1, self.seats + 1))

    @property
    def is_everywhere(self) -> bool:
        """Whether the room is served at all addresses of the machine."""
        return self.address in ("0.0.0.0", "::")  # noqa: S104  # a comparison

    @property
    def memory_bytes(self) -> int:
        return size_of(self.memory)

    @property
    def disk_bytes(self) -> int:
        return size_of(self.disk)


def read_settings(
    path: Path | None, *, earlier: Settings | None = None, **given: object
) -> Settings:
    """The settings in a file; without one the `earlier` ones, or the usual. `given` values that are
    not None replace them. Paths in it are those beside the file.

    Raises InputError, with the reason, for a file that cannot be read or does not fit.

    >>> from rfe_helpers import room
    >>> room.read_settings(None, seats=12, disk="40 GiB").disk_bytes
    42949672960
    """
    document: dict[str, object] = msgspec.to_builtins(earlier) if earlier else {}
    if path is not None:
        try:
            with path.expanduser().open("rb") as file:
                data = file.read(_LONGEST + 1)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        if len(data) > _LONGEST:
            raise InputError(f"{path} is larger than {_LONGEST // 1000} kB")
        try:
            document = msgspec.toml.decode(data, type=dict[str, object])
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"{path}: {error}") from None
    document |= {name: value for name, value in given.items() if value is not None}
    if given.get("seats") is not None:
        document.pop("names", None)
    try:
        settings = msgspec.convert(document, Settings)
        beside = path.expanduser().absolute().parent if path else Path("/")
        settings = msgspec.structs.replace(
            settings,
            **{
                name: str(beside / Path(getattr(settings, name)).expanduser())
                for name in ("certificate", "key")
                if getattr(settings, name)
            },
        )
        _check(settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise InputError(f"{path or 'the room'}: {error}") from None
    return settings


def size_of(text: str) -> int:
    """Bytes, of a text such as "4 GiB" or "500M". Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 4 GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def _check(settings: Settings) -> None:
    """Raise ValueError for what the types do not say."""
    for name in settings.people:
        if not _NAME.fullmatch(name) or name == TRAINER:
            raise ValueError(
                f"{name[:40]!r} is not a name for a seat: up to 24 small letters, digits and -, "
                f"a letter first, and not {TRAINER!r}"
            )
    if len(set(settings.people)) != len(settings.people):
        raise ValueError("two seats have the same name")
    if len(settings.people) > 500:
        raise ValueError("a room has 500 seats at most")
    if settings.memory_bytes < _LEAST_MEMORY:
        raise ValueError(f"a seat needs 1 GiB of memory, and not {settings.memory}")
    if settings.disk_bytes < _LEAST_DISK:
        raise ValueError(f"a seat needs 4 GiB of disk, and not {settings.disk}")
    if bool(settings.certificate) != bool(settings.key):
        raise ValueError("certificate and key go together")
    for name in filter(None, (settings.certificate, settings.key)):
        if not Path(name).is_file():
            raise ValueError(f"there is no file {name}")
