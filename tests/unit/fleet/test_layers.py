"""What container layers cost: the model, and measured with the real registry and skopeo."""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from rfe_helpers.commit import oci
from rfe_helpers.core import journal
from rfe_helpers.errors import InputError, ServeError
from rfe_helpers.fleet import layers
from rfe_helpers.fleet.rollout import Mirror, Pull
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve import registry

MIRROR = Mirror(requests=1000, bytes=100e6)
OBJECTS = Pull(requests=50, bytes=1e6)


def test_layers_are_fetched_whole_with_a_few_requests() -> None:
    one, three = layers.pull([152e6]), layers.pull([100e6, 50e6, 2e6])
    assert three.requests == one.requests + 2
    assert one.bytes == pytest.approx(152e6, rel=1e-4)
    assert three.bytes == pytest.approx(one.bytes, rel=1e-4)
    assert one.check_requests < one.requests
    with pytest.raises(InputError, match="negative"):
        layers.pull([-1])


def test_the_model_agrees_with_what_was_measured() -> None:
    measured = layers.RECORDED.cost
    model = layers.pull([layer.size for layer in layers.RECORDED.layers if layer.is_new])
    assert model.requests == measured.requests
    assert model.bytes == pytest.approx(measured.bytes, rel=0.01)
    assert model.check_requests == measured.check_requests
    assert model.check_bytes == pytest.approx(measured.check_bytes, rel=0.2)


def test_more_layers_are_fewer_bytes_and_more_requests() -> None:
    whole = layers.pull([152e6])
    assert layers.chunked(152e6, 1, 1) == whole
    assert layers.chunked(152e6, 1, 40) == whole
    costs = [layers.chunked(152e6, count, 10) for count in (1, 4, 16, 64)]
    assert [c.bytes for c in costs] == sorted((c.bytes for c in costs), reverse=True)
    assert [c.requests for c in costs] == sorted(c.requests for c in costs)
    one = layers.chunked(152e6, 64, 1)
    assert one.requests == pytest.approx(whole.requests)
    assert one.bytes == pytest.approx(152e6 / 64, rel=0.01)
    # Nothing changed: the manifest says so.
    assert layers.chunked(152e6, 64, 0).bytes < 10_000
    for chunks, changed in ((0, 1), (64, -1)):
        with pytest.raises(InputError, match="cannot have"):
            layers.chunked(152e6, chunks, changed)


def test_break_even_is_where_both_cost_the_same() -> None:
    by_bytes = layers.break_even(OBJECTS)
    assert layers.pull([by_bytes]).bytes == pytest.approx(OBJECTS.bytes)
    by_time = layers.break_even(OBJECTS, MIRROR)
    assert layers.busy(layers.pull([by_time]), MIRROR) == pytest.approx(
        layers.busy(OBJECTS, MIRROR)
    )
    # Fifty requests take more of this mirror's time than one megabyte.
    assert layers.busy(OBJECTS, MIRROR) == pytest.approx(0.05)
    assert by_time > 4 * by_bytes
    assert layers.break_even(Pull(requests=1, bytes=100)) == 0
    assert layers.break_even(Pull(requests=1, bytes=100), MIRROR) == 0


def test_the_timer_of_bootc() -> None:
    timer = layers.BOOTC
    assert (timer.on_boot, timer.on_unit_inactive) == (3600, 8 * 3600)
    assert timer.randomized_delay == 2 * 3600


def test_recorded_updates_have_every_form() -> None:
    for costs in layers.RECORDED_UPDATES.values():
        forms = [layers.OBJECTS, layers.DELTA, layers.OWN_LAYER, layers.BASE_LAYER]
        assert list(costs) == forms
        assert costs[layers.BASE_LAYER].bytes == max(cost.bytes for cost in costs.values())
        assert costs[layers.OBJECTS].requests == max(cost.requests for cost in costs.values())


def test_a_layer_is_stored_at_the_ref_that_bootc_has() -> None:
    argv = layers.store_argv(Path("layout"), Path("repo"), "sha256:abc")
    assert "--branch=ostree/container/blob/sha256_3A_abc" in argv
    assert "--tree=tar=layout/blobs/sha256/abc" in argv


# measured -------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "lab", "sandbox")
    yield lab
    lab.sweep()
    journal.open_journal(None)


def layer(directory: Path, name: str, size: int) -> oci.Layer:
    """A layer that holds `size` bytes that cannot be compressed."""

    def fill(tar: tarfile.TarFile) -> None:
        oci.add_directory(tar, "usr")
        oci.add_file(tar, f"usr/{name}", Random(name).randbytes(size))

    return oci.write_layer(directory / f"{name}.tar.gz", fill)


def push(
    target: registry.Registry, directory: Path, parts: Sequence[oci.Layer], *tags: str
) -> None:
    """Push one image, at each of `tags`."""
    archive = directory / "image.tar"
    oci.write_archive(archive, parts, {"Labels": {"containers.bootc": "1"}}, created_by="a test")
    for tag in tags:
        target.push(archive, f"{layers.REPOSITORY}:{tag}")


def test_only_new_layers_are_fetched(lab: Lab, tmp_path: Path) -> None:
    assert layers.of_lab(lab) == layers.RECORDED
    running = registry.start(lab)
    assert layers.of_lab(lab) == layers.RECORDED  # an empty registry
    base, app = layer(tmp_path, "base", 2_000_000), layer(tmp_path, "application", 50_000)
    push(running, tmp_path, [base, app], "9", "10")
    assert layers.of_lab(lab) == layers.RECORDED  # both are the same image
    push(running, tmp_path, [base], "stable")
    newer = layer(tmp_path, "application-2", 70_000)
    push(running, tmp_path, [base, newer], "10")

    update = layers.of_lab(lab)
    assert update.source == "as measured now, from edge/os:9 to edge/os:10"
    assert [each.is_new for each in update.layers] == [False, True]
    assert 70_000 < update.fetched < 71_000
    model = layers.pull([update.fetched])
    assert update.cost.requests == model.requests
    assert update.cost.bytes == pytest.approx(model.bytes, abs=1500)
    assert update.cost.check_requests == model.check_requests
    assert update.cost.check_bytes == pytest.approx(model.check_bytes, abs=500)
    assert update.cost.seconds > 0

    first = layers.measure(running, "edge/os:10")
    assert first.requests == update.cost.requests + 1
    assert first.bytes - update.cost.bytes == pytest.approx(base.size, abs=1500)
    push(running, tmp_path, [layer(tmp_path, "base-2", 2_000_000), newer], "11")
    assert [each.is_new for each in layers.of_lab(lab).layers] == [True, False]
    with pytest.raises(ServeError, match=r"cannot fetch edge/os:12: .*manifest unknown"):
        layers.measure(running, "edge/os:12")
    registry.stop(lab)
    assert layers.of_lab(lab) == layers.RECORDED
