"""Publications with a real ostree; readers while something is published."""

import threading
from pathlib import Path

import pytest
from support.trees import make_container, make_tree

from rfe_helpers.commit import drift
from rfe_helpers.commit.ostree import Load, Repo
from rfe_helpers.commit.signing import signing_key
from rfe_helpers.errors import CommitError, InputError
from rfe_helpers.serve import publication as publication_module
from rfe_helpers.serve.publication import Publication, delta_pays, parent_warning, transfer_bytes

REF = "a/b"


@pytest.fixture
def composed(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "composed").init()


def commit(composed: Repo, content: str, parent: str | None = None, **files: str) -> str:
    tree = make_tree(composed.path / "tree.tar", {"usr/note": content, **files})
    return composed.commit_tar(tree, REF, subject=content, parent=parent, packages=[])


def test_history_is_kept_by_the_policy(composed: Repo, tmp_path: Path) -> None:
    publication = Publication(tmp_path / "p", keep=2)
    commits: list[str] = []
    for number in range(3):
        commits.append(commit(composed, str(number), commits[-1] if commits else None))
        published = publication.publish(composed.path, REF)
        assert published.commit == commits[-1]
    assert publication.history(REF) == tuple(commits[1:])
    assert published.removed == (commits[0],)
    assert [publication.repo.has_commit(c) for c in commits] == [False, True, True]
    assert publication.repo.refs() == {REF: commits[2]}
    publication.repo.fsck()


def test_a_publication_that_was_killed_is_completed_by_the_next(
    composed: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication = Publication(tmp_path / "p", keep=2)
    one = commit(composed, "one")
    publication.publish(composed.path, REF)
    two = commit(composed, "two", one)
    for step in ("_remember", "_remove_old"):
        with monkeypatch.context() as patch:
            patch.setattr(Publication, step, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                publication.publish(composed.path, REF)
        assert publication.repo.refs() == {REF: two}, "it is served"
    three = commit(composed, "three", two)
    assert publication.publish(composed.path, REF).previous == two
    assert publication.history(REF) == (two, three)


def test_one_key_serves_whoever_asks_at_the_same_time(composed: Repo, tmp_path: Path) -> None:
    home = tmp_path / ("é" * 60) / "gnupg"  # too long for the agent's socket, in bytes
    one = commit(composed, "one")
    keys: list[str] = []
    failures: list[Exception] = []

    def sign(number: int) -> None:
        try:
            key = signing_key(home)
            keys.append(key.id)
            Publication(tmp_path / f"p{number}", key).publish(composed.path, REF)
        except CommitError as error:
            failures.append(error)

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert Publication(tmp_path / "p0").repo.refs() == {REF: one}


def test_numbers_that_several_names_share_are_not_a_change() -> None:
    shared = "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n+::::::\n"
    assert drift.compare("user", shared, shared) == []
    (change,) = drift.compare("user", shared, shared + "new:x:0:0::/:/bin/sh\n")
    assert str(change) == "user new is new and has number 0, which was root and toor's"


def test_an_artifact_of_image_builder_is_published(composed: Repo, tmp_path: Path) -> None:
    """container.tar: the repository lies in one of its layers."""
    one = commit(composed, "one")
    container = make_container(
        tmp_path / "container.tar", [{"usr/share/nginx/html/repo": composed.path}]
    )
    publication = Publication(tmp_path / "p")
    assert publication.publish(container, REF).commit == one
    assert publication.repo.refs() == {REF: one}
    names = sorted(path.name for path in publication.directory.iterdir())
    assert names == ["lock", "publication.json", "repo"]


def test_publishing_again_changes_nothing(composed: Repo, tmp_path: Path) -> None:
    publication = Publication(tmp_path / "p", signing_key(tmp_path / "gnupg"))
    first = commit(composed, "one")
    publication.publish(composed.path, REF)
    second = commit(composed, "two", first)
    for _ in range(2):
        published = publication.publish(composed.path, REF)
        assert (published.previous, published.commit) == (first, second)
        assert publication.history(REF) == (first, second)


def test_a_delta_is_kept_if_it_pays_or_always(composed: Repo, tmp_path: Path) -> None:
    publication = Publication(tmp_path / "p")
    first = commit(composed, "1")
    publication.publish(composed.path, REF)
    many = {f"usr/many/{number}": f"{number}" for number in range(publication_module.FEW_REQUESTS)}
    second = commit(composed, "1", first, **many)
    update = publication.publish(composed.path, REF)
    assert update.by_objects is not None
    assert update.delta is not None
    assert update.delta.requests < 5 < update.by_objects.requests
    assert transfer_bytes(update.delta) < transfer_bytes(update.by_objects) / 4
    third = commit(composed, "2", second, **many)
    assert publication.publish(composed.path, REF).delta is None
    with pytest.raises(CommitError):
        publication.repo.delta(second, third)
    assert publication.publish(composed.path, REF, delta="always").delta is not None
    with pytest.raises(InputError, match="auto, always or never"):
        publication.publish(composed.path, REF, delta="sometimes")


def test_when_a_delta_pays() -> None:
    assert delta_pays(Load(2, 900_000), Load(500, 900_000))
    assert not delta_pays(Load(2, 900_000), Load(499, 900_000))
    assert not delta_pays(Load(2, 900_000), Load(500, 100_000))


def test_the_load_of_an_update_is_what_a_client_fetches(composed: Repo, tmp_path: Path) -> None:
    """4 objects: the commit, a file, and the trees of /usr and / with it; no directory's own."""
    publication = Publication(tmp_path / "p")
    first = commit(composed, "one")
    publication.publish(composed.path, REF)
    commit(composed, "two", first)
    load = publication.publish(composed.path, REF).by_objects
    assert load is not None
    assert load.requests == 4
    assert 0 < load.size < 1000
    assert transfer_bytes(Load(requests=2, size=5)) == 805


def test_what_is_odd_about_an_update_is_a_warning(composed: Repo, tmp_path: Path) -> None:
    publication = Publication(tmp_path / "p")
    users = "root:x:0:0::/:/bin/sh\nweb:x:101:1::/:/bin/sh\n"
    first = commit(composed, "one", **{"usr/lib/passwd": users})
    assert publication.publish(composed.path, REF).warnings == ()
    users = "root:x:0:0::/:/bin/sh\ndata:x:101:1::/:/bin/sh\nweb:x:102:1::/:/bin/sh\n"
    commit(composed, "two", first, **{"usr/lib/passwd": users})
    assert publication.publish(composed.path, REF).warnings == (
        "user data is new and has number 101, which was web's",
        "user web was number 101 and has number 102",
    )
    commit(composed, "three", **{"usr/lib/passwd": users})
    warnings = publication.publish(composed.path, REF).warnings
    assert [line.partition(":")[0] for line in warnings] == ["the update has no parent"]
    assert "not bbbbbbbbbbbb" in parent_warning("a" * 64, "b" * 64)
    assert parent_warning("a" * 64, "a" * 64) == ""


def test_drift_of_groups() -> None:
    old, new = "wheel:x:10:\nops:x:20:\n", "ops:x:20:\nwheel:x:11:\nbroken line\n"
    assert [str(change) for change in drift.compare("group", old, new)] == [
        "group wheel was number 10 and has number 11"
    ]


def test_a_withdrawn_commit_stays_and_the_ref_goes_back(composed: Repo, tmp_path: Path) -> None:
    publication = Publication(tmp_path / "p")
    first = commit(composed, "one")
    publication.publish(composed.path, REF)
    second = commit(composed, "two", first)
    publication.publish(composed.path, REF)
    publication.withdraw(REF, first)
    assert publication.repo.refs() == {REF: first}
    assert publication.repo.has_commit(second)
    with pytest.raises(CommitError, match="not among the kept"):
        publication.withdraw(REF, "0" * 64)


def test_a_publication_keeps_at_least_two(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="still fetching"):
        Publication(tmp_path / "p", keep=1)


def test_a_reader_gets_the_old_state_or_the_new(composed: Repo, tmp_path: Path) -> None:
    """Clients pull all the time while commits are published and old ones are removed."""
    publication = Publication(tmp_path / "p", signing_key(tmp_path / "gnupg"), keep=2)
    known = [commit(composed, "0")]
    publication.publish(composed.path, REF)
    assert publication.key is not None
    device = Repo(tmp_path / "device").init("bare-user-only")
    url = publication.repo.path.as_uri()
    device.add_remote("edge", url, key=publication.key.public)
    finished = threading.Event()
    seen: list[str] = []
    failures: list[CommitError] = []

    def read() -> None:
        while not finished.is_set():
            try:
                seen.append(device.pull("edge", REF))
            except CommitError as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 6):
            known.append(commit(composed, str(number), known[-1]))
            publication.publish(composed.path, REF)
    finally:
        finished.set()
        reader.join()
    assert failures == []
    assert seen
    assert set(seen) <= set(known)
    assert [known.index(commit) for commit in seen] == sorted(map(known.index, seen))
    assert device.pull("edge", REF) == known[-1]
    device.fsck()
