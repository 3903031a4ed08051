"""Routes of section 3: projects and modules, which are Debian packages here."""

from __future__ import annotations

from typing import Any

from rfe_helpers.build.blueprint import PackageSpec
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import RfeError
from rfe_helpers.sandbox.service.depsolve import dependencies
from rfe_helpers.sandbox.service.packages import AptPackage
from rfe_helpers.sandbox.service.wire import (
    INDEX,
    SOLVING,
    Call,
    Refusal,
    Route,
    Service,
    distinct,
    page,
)

# Each module takes a run of apt, half a second or more.
_SOLVE_SECONDS = 60


def list_projects(service: Service, call: Call) -> dict[str, Any]:
    call.check_distro()
    offset, limit = call.paging()
    extra = service.extra_sources()
    try:
        names = service.index.names((), extra)
        shown = [_info(versions) for versions in _versions(service, page(names, offset, limit))]
    except RfeError as error:
        raise Refusal("ProjectsError", f"msg: {error.message}") from None
    return {"total": len(names), "offset": offset, "limit": limit, "projects": shown}


def list_modules(service: Service, call: Call) -> dict[str, Any]:
    call.check_distro()
    offset, limit = call.paging()
    globs = [glob for glob in distinct(call.path.get("globs", "")) if glob]
    try:
        names = service.index.names(globs, service.extra_sources())
    except RfeError as error:
        raise Refusal("ModulesError", f"msg: {error.message}") from None
    if not names:
        raise Refusal("UnknownModule", "No packages have been found.")
    modules = [{"name": name, "group_type": "rpm"} for name in page(names, offset, limit)]
    return {"total": len(names), "offset": offset, "limit": limit, "modules": modules}


def project_info(service: Service, call: Call) -> dict[str, Any]:
    packages = _requested(service, call, "UnknownProject", "ProjectsError")
    return {"projects": [_info(versions) for versions in packages]}


def module_info(service: Service, call: Call) -> dict[str, Any]:
    packages = _requested(service, call, "UnknownModule", "ModulesError")
    limit = Deadline(_SOLVE_SECONDS)
    modules: list[dict[str, Any]] = []
    for versions in packages:
        if limit.expired:
            solved_of = f"{len(modules)} of {len(packages)} packages were solved"
            raise Refusal("ModulesError", f"msg: {solved_of} in {_SOLVE_SECONDS} s; name fewer")
        try:
            solved = _depsolve(service, [PackageSpec(versions[0].name)])
        except RfeError as error:
            raise Refusal("ModulesError", f"msg: {error.message}") from None
        modules.append({**_info(versions), "dependencies": dependencies(service, solved)})
    return {"modules": modules}


def depsolve_projects(service: Service, call: Call) -> dict[str, Any]:
    call.check_distro()
    names = _names(call, "UnknownProject")
    try:
        solved = _depsolve(service, [PackageSpec(name) for name in names])
    except RfeError as error:
        raise Refusal("ProjectsError", f"BadRequest: {error.message}") from None
    return {"projects": dependencies(service, solved)}


def _names(call: Call, unknown: str) -> list[str]:
    names = [name for name in distinct(call.path.get("names", "")) if name]
    if not names:
        raise Refusal(unknown, "No packages specified.")
    return names


def _requested(service: Service, call: Call, unknown: str, failed: str) -> list[list[AptPackage]]:
    """All versions of each package that a name or glob in the path means. Raises Refusal."""
    call.check_distro()
    globs = _names(call, unknown)
    try:
        packages = _versions(service, service.index.names(globs, service.extra_sources()))
    except RfeError as error:
        raise Refusal(failed, f"msg: {error.message}") from None
    if not packages:
        raise Refusal(unknown, "No packages have been found.")
    return packages


def _versions(service: Service, names: Any) -> list[list[AptPackage]]:
    return service.index.versions(names, service.extra_sources())


def _depsolve(service: Service, specs: list[PackageSpec]) -> list[AptPackage]:
    extra = service.extra_sources()
    return service.index.depsolve(service.index.resolve(specs, extra), extra)


def _info(versions: list[AptPackage]) -> dict[str, Any]:
    """All versions of one package as the API's PackageInfo. Debian's index has neither licenses
    nor build times; the time is that of the index."""
    first = versions[0]
    return {
        "name": first.name,
        "summary": first.summary,
        "description": first.summary,
        "homepage": first.homepage,
        "upstream_vcs": "UPSTREAM_VCS",
        "builds": [
            {
                "arch": package.arch,
                "build_time": package.at,
                "epoch": package.epoch,
                "release": package.release,
                "source": {
                    "license": "",
                    "version": package.version,
                    "source_ref": "SOURCE_REF",
                    "metadata": {},
                },
                "changelog": "CHANGELOG_NEEDED",
                "build_config_ref": "BUILD_CONFIG_REF",
                "build_env_ref": "BUILD_ENV_REF",
                "metadata": {},
            }
            for package in versions
        ],
    }


ROUTES = (
    Route("GET", "/projects/list", list_projects, lane=INDEX),
    Route("GET", "/projects/list/", list_projects, lane=INDEX),
    Route("GET", "/projects/info", project_info, lane=INDEX),
    Route("GET", "/projects/info/{names:path}", project_info, lane=INDEX),
    Route("GET", "/projects/depsolve", depsolve_projects, lane=SOLVING),
    Route("GET", "/projects/depsolve/{names:path}", depsolve_projects, lane=SOLVING),
    Route("GET", "/modules/list", list_modules, lane=INDEX),
    Route("GET", "/modules/list/{globs:path}", list_modules, lane=INDEX),
    Route("GET", "/modules/info", module_info, lane=SOLVING),
    Route("GET", "/modules/info/{names:path}", module_info, lane=SOLVING),
)
