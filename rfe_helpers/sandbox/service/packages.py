"""Debian's package index and apt's own solver, without root.

apt gets a root of its own in the cache, `apt/`, shared by all services of a user:

    lock            held (flock) while apt works
    lists/          what apt-get update fetched, for all sets of sources
    keys/           the keys of additional sources that are given by URL (build/keys.py)
    <set>/          one set of sources: the system's, or those and additional ones
        apt.conf, sources.list.d/, pkgcache.bin   what apt needs to work on this set
        index.sqlite                              the set's packages, rewritten by each update

A set is named by the digest of its sources; one that has not been used for a week is removed. An
index older than a day is fetched again; without a network the old one stays in use.

The system's sources are what mmdebstrap would use for the suite (with RFE_DEBIAN_MIRROR, if that
is set), so depsolve sees what a compose will install.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import translate
from functools import cmp_to_key
from pathlib import Path
from typing import Any

from rfe_helpers.build.blueprint import PackageSpec
from rfe_helpers.core import files, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError, RfeError
from rfe_helpers.sandbox.build import keys
from rfe_helpers.sandbox.service import solver

SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FRESH_SECONDS = 86400
FORGOTTEN_SECONDS = 7 * 86400
# A server that does not answer keeps a fetch for 20 s, one that sends next to nothing for 120 s; in
# the ten seconds after that the same error is given at once.
_SILENT_SECONDS, _FETCH_SECONDS, _FAILED_SECONDS = 5, 120, 10
_RESOLVE_SECONDS = 30
_MOST_GLOBS = 500
_GLOB = re.compile(r"[*?\[]")
# Debian's architectures under the names that clients of the API know
ARCHITECTURES = {"amd64": "x86_64", "all": "noarch", "arm64": "aarch64"}
# mmdebstrap gets all packages in one argument, which Linux limits to 128 KiB.
_LONGEST_REQUEST = 100_000
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SCHEMA = """
CREATE TABLE packages (
    name TEXT, version TEXT, arch TEXT, summary TEXT, homepage TEXT, at TEXT
);
CREATE TABLE provides (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_BY_NAME = "CREATE INDEX packages_by_name ON packages (name)"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AptPackage:
    """One version of a package. `arch` as in the API; `at`: the time of the index it is from. A
    solution's have `url` and `sha256`, which are "" in others."""

    name: str
    debian_version: str
    arch: str
    summary: str = ""
    homepage: str = ""
    at: str = ""
    url: str = ""
    sha256: str = ""

    @property
    def epoch(self) -> int:
        epoch, colon, _ = self.debian_version.partition(":")
        return int(epoch) if colon and epoch.isdecimal() else 0

    @property
    def version(self) -> str:
        rest = self.debian_version.partition(":")[2] or self.debian_version
        return rest.rpartition("-")[0] or rest

    @property
    def release(self) -> str:
        """Debian's revision, "" for a native package."""
        upstream, _, revision = self.debian_version.rpartition("-")
        return revision if upstream else ""

    @property
    def evra(self) -> str:
        """[epoch:]version[-release].arch, as blueprints are frozen to."""
        epoch = f"{self.epoch}:" if self.epoch else ""
        release = f"-{self.release}" if self.release else ""
        return f"{epoch}{self.version}{release}.{self.arch}"

    def to_dependency(self, *, check_gpg: bool = True) -> dict[str, Any]:
        """The API's short form; only name and epoch are there if they are empty, too."""
        optional = {
            "version": self.version,
            "release": self.release,
            "arch": self.arch,
            # What apt takes from a list of mirrors has no one place.
            "remote_location": "" if self.url.startswith("mirror+") else self.url,
            "checksum": f"sha256:{self.sha256}" if self.sha256 else "",
            "check_gpg": check_gpg,
        }
        given = {key: value for key, value in optional.items() if value}
        return {"name": self.name, "epoch": self.epoch, **given}

    def matches(self, version: re.Pattern[str]) -> bool:
        """Whether a version glob fits; it may leave out the epoch, the release and the arch."""
        without_epoch = self.debian_version.partition(":")[2] or self.debian_version
        spellings = (self.debian_version, without_epoch, self.version, self.evra)
        return any(version.fullmatch(text) for text in spellings)


def system_sources() -> str:
    """The Debian sources, one per line in apt's one-line form, as mmdebstrap chooses them."""
    # The hook fails on purpose, so that mmdebstrap stops before it fetches anything.
    show = """--setup-hook=sed 's/^/SOURCE: /' "$1/etc/apt/sources.list"; false"""
    mirror = os.environ.get("RFE_DEBIAN_MIRROR")
    argv = ["mmdebstrap", "--variant=custom", "--format=null", "--architectures=amd64", show]
    if os.geteuid() != 0:
        argv.insert(1, "--mode=unshare")
    result = run.run([*argv, SUITE, "/dev/null", *([mirror] if mirror else [])], check=False)
    lines = (result.stdout + result.stderr).splitlines()
    sources = [line.removeprefix("SOURCE: ") for line in lines if line.startswith("SOURCE: ")]
    if not sources:
        raise BuilderError(
            f"mmdebstrap did not print its package sources:\n{run.tail_of(result.stderr)}",
            remedy="`rfe doctor` checks what mmdebstrap needs",
        )
    return "\n".join(_signed(line) for line in sources if line.startswith("deb "))


def _signed(line: str) -> str:
    """The source, signed by Debian's keyring unless it has options of its own."""
    kind, _, rest = line.partition(" ")
    if rest.startswith("[") or not KEYRING.exists():
        return line
    return f"{kind} [signed-by={KEYRING}] {rest}"


class Index:
    """The packages of the system's sources and of additional ones. Any thread may use it.

    `sources` replaces what `system_sources()` returns. Every method raises RfeError if apt is
    not installed, or if the index can neither be fetched nor be found in the cache.
    """

    def __init__(self, cache: Path, sources: str | None = None) -> None:
        self.directory = cache / "apt"
        self._system = sources
        self._guard = threading.Lock()  # of the dictionaries below; never held while apt works
        self._system_guard = threading.Lock()
        self._fetching: dict[Path, threading.Lock] = {}
        self._failed: dict[Path, tuple[float, str, str]] = {}
        self._names: dict[Path, tuple[float, tuple[str, ...]]] = {}
        self._solved: dict[tuple[Any, ...], list[AptPackage]] = {}

    def system_sources(self) -> str:
        """The system's sources, in apt's one-line form."""
        with self._system_guard:
            if self._system is None:
                kept = self.directory / "system.list"
                try:
                    self._system = system_sources()
                    files.write(kept, self._system)
                except RfeError:
                    if not kept.exists():
                        raise
                    self._system = kept.read_text()
            return self._system

    def fresh(self, extra: Sequence[str] = ()) -> bool:
        """Whether the methods below answer without fetching an index."""
        return self._is_fresh(self._directory(extra))

    def names(self, globs: Sequence[str] = (), extra: Sequence[str] = ()) -> list[str]:
        """The names of packages that match one of the globs, sorted; without globs all names.

        `extra` here and below are additional sources as deb822 text.
        """
        known = self._all_names(self._open(extra))
        if not globs:
            return list(known)
        plain = {glob for glob in globs if not _GLOB.search(glob)}
        patterns = [translate(glob) for glob in dict.fromkeys(globs) if glob not in plain]
        if len(patterns) > _MOST_GLOBS:
            raise BuilderError(f"more than {_MOST_GLOBS} patterns are not searched for at once")
        pattern = re.compile("|".join(patterns) or "(?!)")
        return [name for name in known if name in plain or pattern.match(name)]

    def versions(self, names: Sequence[str], extra: Sequence[str] = ()) -> list[list[AptPackage]]:
        """All versions of each package; a name that does not exist is left out."""
        packages = []
        with self._database(self._open(extra)) as db:
            for name in names:
                rows = db.execute("SELECT * FROM packages WHERE name = ?", [name]).fetchall()
                if rows:
                    packages.append([AptPackage(*row) for row in dict.fromkeys(rows)])
        return packages

    def resolve(self, specs: Sequence[PackageSpec], extra: Sequence[str] = ()) -> list[str]:
        """The requested packages as arguments of apt, "name" or "name=version", globs expanded.

        Raises BuilderError that names all packages that do not exist.
        """
        words: list[str] = []
        missing: list[PackageSpec] = []
        limit = Deadline(_RESOLVE_SECONDS)
        with self._database(self._open(extra)) as db:
            for spec in dict.fromkeys(specs):
                if limit.expired:
                    text = f"{len(specs)} packages are more than can be searched for at once"
                    raise BuilderError(text)
                fitting = self._fitting(db, spec, extra)
                words += fitting
                if not fitting:
                    missing.append(spec)
        if missing:
            raise BuilderError(solver.absence(missing))
        words = list(dict.fromkeys(words))
        if sum(len(word) + 1 for word in words) > _LONGEST_REQUEST:
            raise BuilderError(f"{len(words)} packages are more than can be requested at once")
        return words

    def depsolve(
        self, words: Sequence[str], extra: Sequence[str] = (), base: Sequence[str] = ()
    ) -> list[AptPackage]:
        """The packages that apt would install into an empty system, sorted by name.

        `words` come from `resolve`; `base` are words, or patterns of apt, for what is installed
        with them. Raises BuilderError that says which packages conflict, and why.
        """
        directory = self._open(extra)
        modified = directory.joinpath("index.sqlite").stat().st_mtime_ns
        key = (directory, modified, tuple(sorted(words)), tuple(base))
        solution = self._solved.get(key)
        if solution is None:
            environment = {"APT_CONFIG": str(directory / "apt.conf")}
            solution = [
                AptPackage(
                    solved.name,
                    solved.version,
                    ARCHITECTURES.get(solved.arch, solved.arch),
                    url=solved.url,
                    sha256=solved.sha256,
                )
                for solved in solver.install(words, environment, base)
            ]
            with self._guard:
                if len(self._solved) > 100:
                    self._solved.clear()
                self._solved[key] = solution
        return solution

    # one set of sources -----------------------------------------------------------------------

    def _open(self, extra: Sequence[str]) -> Path:
        """The directory of a set of sources; its index exists, and is fresh if that is possible."""
        directory = self._directory(extra)
        if self._is_fresh(directory):
            return directory
        system = self.system_sources()
        with self._guard:
            fetching = self._fetching.setdefault(directory, threading.Lock())
        with fetching:
            if failed := self._failed.get(directory):
                at, message, remedy = failed
                if time.monotonic() - at < _FAILED_SECONDS:
                    raise BuilderError(message, remedy=remedy)
            try:
                with self._locked():
                    if _age(directory / "index.sqlite") >= FRESH_SECONDS:
                        self._refresh(directory, system, extra)
                    elif not self._is_fresh(directory):
                        self._write_configuration(directory, system, extra)
            except RfeError as error:
                self._failed[directory] = (time.monotonic(), error.message, error.remedy)
                raise
        return directory

    def _directory(self, extra: Sequence[str]) -> Path:
        sources = "\0".join([self.system_sources(), *extra])
        return self.directory / hashlib.sha256(sources.encode()).hexdigest()[:12]

    @staticmethod
    def _is_fresh(directory: Path) -> bool:
        # An index from a shared cache lacks the configuration.
        fresh = _age(directory / "index.sqlite") < FRESH_SECONDS
        return fresh and directory.joinpath("apt.conf").exists()

    def _refresh(self, directory: Path, system: str, extra: Sequence[str]) -> None:
        run.require("apt-get", "apt-cache")
        self._write_configuration(directory, system, extra)
        environment = {"APT_CONFIG": str(directory / "apt.conf")}
        update = ["apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any"]
        index = directory / "index.sqlite"
        try:
            run.run(update, env=environment, seconds=_FETCH_SECONDS)
            targets = run.run(
                ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"],
                env=environment,
            ).stdout.split()
            with files.replacing(index) as temporary:
                _write_index(temporary, [Path(target) for target in targets])
        except RfeError as error:
            if not index.exists():
                raise BuilderError(
                    f"the package index cannot be fetched: {_explanation(error.message)}",
                    remedy="check the network, or set RFE_DEBIAN_MIRROR to a mirror in reach",
                ) from None
            _log.warning("the package index is old, and a new one cannot be fetched: %s", error)
            # The next attempt is in ten minutes, not with the next request.
            os.utime(index, (time.time(), time.time() - FRESH_SECONDS + 600))
        for other in self.directory.glob("*/index.sqlite"):
            if other != index and time.time() - other.stat().st_mtime > FORGOTTEN_SECONDS:
                shutil.rmtree(other.parent, ignore_errors=True)

    def _write_configuration(self, directory: Path, system: str, extra: Sequence[str]) -> None:
        for path in (directory / "sources.list.d", directory / "empty", self.directory / "lists"):
            path.mkdir(parents=True, exist_ok=True)
        (directory / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        files.write(directory / "status", "")
        files.write(directory / "sources.list.d" / "system.list", system + "\n")
        for number, text in enumerate(extra):
            signed = keys.with_keys(text, self.directory / "keys", again=True)
            files.write(directory / "sources.list.d" / f"extra-{number}.sources", signed)
        # Absolute paths throughout: apt takes "./x" as relative to the directory it is started in.
        settings = {
            "Dir": "/",
            "Dir::State": directory,
            "Dir::State::lists": self.directory / "lists",
            "Dir::State::status": directory / "status",
            "Dir::Cache": directory / "cache",
            "Dir::Etc": directory,
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": directory / "sources.list.d",
            "Dir::Etc::parts": directory / "empty",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": directory / "empty",
            "APT::Architecture": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Get::List-Cleanup": "false",
            "Acquire::Languages": "none",
            "Acquire::GzipIndexes": "false",
            "Acquire::Retries": "1",
            "Acquire::http::Timeout": str(_SILENT_SECONDS),
            "Acquire::https::Timeout": str(_SILENT_SECONDS),
            "Debug::NoLocking": "true",
            **({"APT::Sandbox::User": "root"} if os.geteuid() == 0 else {}),
        }
        lines = [f'{key} "{value}";\n' for key, value in settings.items()]
        files.write(directory / "apt.conf", "".join([*lines, 'APT::Architectures { "amd64"; };\n']))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with files.locked(self.directory / "lock"):
            yield

    @contextmanager
    def _database(self, directory: Path) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(f"file:{directory / 'index.sqlite'}?mode=ro", uri=True)
        try:
            yield db
        finally:
            db.close()

    def _all_names(self, directory: Path) -> tuple[str, ...]:
        modified = (directory / "index.sqlite").stat().st_mtime
        known = self._names.get(directory)
        if known is None or known[0] != modified:
            with self._database(directory) as db:
                rows = db.execute("SELECT DISTINCT name FROM packages ORDER BY name").fetchall()
            known = (modified, tuple(row[0] for row in rows))
            with self._guard:
                if len(self._names) > 3:
                    self._names.clear()
                self._names[directory] = known
        return known[1]

    def _fitting(
        self, db: sqlite3.Connection, spec: PackageSpec, extra: Sequence[str]
    ) -> list[str]:
        """The arguments of apt for one requested package; none if it does not exist."""
        names = [spec.name]
        if _GLOB.search(spec.name):
            names = self.names([spec.name], extra)
        any_version = spec.version in ("", "*")
        words = []
        for name in names:
            rows = db.execute("SELECT * FROM packages WHERE name = ?", [name]).fetchall()
            versions = [AptPackage(*row) for row in rows]
            if versions and any_version:
                words.append(name)
            elif versions:
                pattern = re.compile(translate(spec.version))
                fitting = {p.debian_version for p in versions if p.matches(pattern)}
                if fitting:
                    words.append(f"{name}={_highest(fitting)}")
            elif any_version and _NAME.fullmatch(name) and _is_provided(db, name):
                words.append(name)
        return words


def _is_provided(db: sqlite3.Connection, name: str) -> bool:
    """Whether some package provides this virtual package; apt chooses which."""
    return db.execute("SELECT 1 FROM provides WHERE name = ?", [name]).fetchone() is not None


def _highest(versions: set[str]) -> str:
    """The newest version by Debian's rules, as dpkg compares them."""

    def compare(one: str, other: str) -> int:
        argv = ["dpkg", "--compare-versions", one, "gt", other]
        return 1 if run.run(argv, check=False).status == 0 else -1

    return max(versions, key=cmp_to_key(compare))


def _explanation(tail: str) -> str:
    """apt's errors on one line."""
    skipped = ("Reading package lists", "Building dependency tree", "Reading state information")
    lines = [line.strip() for line in tail.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(skipped))


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _write_index(path: Path, sources: Sequence[Path]) -> None:
    """Read Debian's Packages files into a database."""
    db = sqlite3.connect(path)
    try:
        db.executescript(_SCHEMA)
        for source in sources:
            if not source.exists():
                continue  # apt stores no file for an empty index
            at = datetime.fromtimestamp(source.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            for fields in _paragraphs(source):
                name, version, architecture = (fields[key] for key in _NEEDED)
                architecture = ARCHITECTURES.get(architecture, architecture)
                about = fields.get("Description", ""), fields.get("Homepage", "")
                db.execute(
                    "INSERT INTO packages VALUES (?, ?, ?, ?, ?, ?)",
                    [name, version, architecture, *about, at],
                )
                if provides := fields.get("Provides"):
                    names = ([text.partition("(")[0].strip()] for text in provides.split(","))
                    db.executemany("INSERT OR IGNORE INTO provides VALUES (?)", names)
        db.executescript(_BY_NAME)
        db.commit()
    finally:
        db.close()


_NEEDED = ("Package", "Version", "Architecture")
# A field of the index, or the empty line after a package. It begins with the newline before it,
# for which Python's regular expressions search much faster than for "^" or line by line.
_FIELD = re.compile(
    rb"\n(?:(Package|Version|Architecture|Description|Homepage|Provides):(.*)|(?=\n))"
)


def _paragraphs(source: Path) -> Iterator[dict[str, str]]:
    """The fields of each package; of a field that spans several lines, the first."""
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(b"\n" + source.read_bytes() + b"\n\n"):
        key, value = match.groups()
        if key:
            fields[key.decode()] = value.decode(errors="replace").strip()
        else:
            if all(key in fields for key in _NEEDED):
                yield fields
            fields = {}
