"""The faces of the package: what notebooks and users import, so that a change of it is seen."""

import doctest
import importlib
import inspect
import pydoc

import pytest

FACES = {
    "rfe_helpers": """
        Blueprint Deadline Lab Machine Node VmSpec build commit compose connect core
        errors fleet imagemode install lab machine open_commit prove serve workbook
    """,
    "rfe_helpers.build": """
        Artifact Blueprint Client Compose Finding PackageSpec base_image boot_iso builder_of compose
        connect fill_cache guest_image lint parse_toml remote status stop to_toml
    """,
    "rfe_helpers.commit": """
        Commit CommitDiff Package Repo SigningKey by_delta diff open_commit signing_key
    """,
    "rfe_helpers.core": """
        Deadline OnProgress elapsed files network run size ssh wait_for
    """,
    "rfe_helpers.fleet": """
        APPLYUPDATE BOOTC DAY Device DeviceState Fleet LOOKS Mirror PODMAN Plan Pull
        RPM_OSTREE application ask_all cost description everywhere figures layers moment
        move_timer parse_timer plan plot_break_even plot_completion plot_load plot_splay
        smallest_splay span survey sweep timers utc
    """,
    "rfe_helpers.imagemode": """
        BASE REPOSITORY BootcHost ContextFile Counterpart ImageKey PlanStep PushedImage
        Remark Translation base_image build_image counterparts installer_iso lint
        parse_host plan policy_script push_base pushed read_host sign
        signing_key translate write write_layer
    """,
    "rfe_helpers.install": """
        download kickstart media mkksiso
    """,
    "rfe_helpers.lab": """
        Lab Profile cache_directory profile
    """,
    "rfe_helpers.machine": """
        Deployment Machine Node NodeStatus VmSpec disks find_accelerator guest install
    """,
    "rfe_helpers.prove": """
        DISTANT FAST Link Proof Quality interruptions powerloss
    """,
    "rfe_helpers.room": """
        Report Room Settings read_report read_settings
    """,
    "rfe_helpers.serve": """
        Earlier Publication Published Registry Site port_of publish published registry
        remember remove_container stop
    """,
    "rfe_helpers.workbook": """
        BlueprintEditor CommitBrowser ComposePanel Live MachinePanel Markup NodePanel
        Picture Progress Table bars begin check connections deployments doctor exercise
        facts headless life_cycle mask size timer_table times tree watch
    """,
}


@pytest.fixture(params=FACES)
def face(request):
    return importlib.import_module(request.param)


def test_the_public_names_are_these(face):
    assert face.__all__ == sorted(FACES[face.__name__].split())
    assert set(face.__all__) <= set(dir(face))  # what tab completion offers


def test_every_name_leads_somewhere_and_says_what_it_is(face):
    for name in face.__all__:
        thing = getattr(face, name)
        if inspect.ismodule(thing) or inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name


def test_completion_offers_the_public_names_and_nothing_else():
    """Even after submodules have been imported, which become attributes."""
    package = importlib.import_module("rfe_helpers")
    importlib.import_module("rfe_helpers.sandbox")
    offered = {name for name in dir(package) if not name.startswith("__")}
    assert offered == set(FACES["rfe_helpers"].split())
    assert {"Lab", "Blueprint", "open_commit", "compose", "build"} <= offered


def functions_of(thing):
    """What can be called of a module, a class, or the function itself."""
    if inspect.isfunction(thing):
        yield thing
    elif inspect.isclass(thing) or inspect.ismodule(thing):
        for name, member in vars(thing).items():
            inner = getattr(member, "__func__", member)
            if not name.startswith("_") and inspect.isfunction(inner):
                yield inner


def test_whatever_takes_a_deadline_takes_seconds(face):
    for name in face.__all__:
        for function in functions_of(getattr(face, name)):
            limit = inspect.signature(function).parameters.get("deadline")
            assert limit is None or "float" in limit.annotation, function


def test_it_says_what_its_chapter_is_about_with_an_example(face):
    assert face.__doc__.splitlines()[0].strip()
    lines = doctest.DocTestParser().get_examples(face.__doc__)
    assert len(lines) >= 3
    assert any("rfe_helpers" in line.source for line in lines)


def test_help_leads_an_explorer_to_every_wing():
    text = pydoc.render_doc(importlib.import_module("rfe_helpers"), renderer=pydoc.plaintext)
    for name in FACES:
        assert name.rpartition(".")[2] in text
