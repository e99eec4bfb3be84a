"""Which listings are used again, and for how long."""

import time

import pytest

from loraloom.adapters.store.listings import Listings, group_of, split_groups, tree_of

TREE = {"names/sql": ["versions"]}


@pytest.fixture
def listings() -> Listings:
    return Listings(lifetime=3600)


def test_a_listing_is_used_within_its_lifetime(listings: Listings) -> None:
    assert listings.get("names/sql") is None
    listings.put("names/sql", time.monotonic(), TREE)
    assert listings.get("names/sql") == TREE
    listings.put("names/date", time.monotonic() - 3601, TREE)
    assert listings.get("names/date") is None


def test_a_listing_that_began_before_a_change_is_not_used_after_it(listings: Listings) -> None:
    began = time.monotonic()
    listings.put("names/sql", began, TREE)
    listings.forget("names/sql")
    assert listings.get("names/sql") is None
    listings.put("names/sql", began, TREE)
    assert listings.get("names/sql") is None
    listings.put("names/sql", time.monotonic(), TREE)
    assert listings.get("names/sql") == TREE


def test_an_older_listing_does_not_replace_a_newer_one(listings: Listings) -> None:
    began = time.monotonic()
    listings.put("names/sql", began, TREE)
    listings.put("names/sql", began - 1, {})
    assert listings.get("names/sql") == TREE


@pytest.mark.parametrize(
    ("path", "group"),
    [("names", "names"), ("names/sql", "names/sql"), ("names/sql/tags/a/1.json", "names/sql"), ("store.json",) * 2],
)
def test_a_group_is_all_that_concerns_one_name(path: str, group: str) -> None:
    assert group_of(path) == group


def test_folders_follow_from_the_paths_of_objects() -> None:
    tree = tree_of(["names/a/versions/1", "names/a/versions/2", "names/b/tags/x/1", "store.json"])
    assert tree == {
        "names": ["a", "b"],
        "names/a": ["versions"],
        "names/a/versions": ["1", "2"],
        "names/b": ["tags"],
        "names/b/tags": ["x"],
        "names/b/tags/x": ["1"],
    }
    assert split_groups(tree) == {
        "names": {"names": ["a", "b"]},
        "names/a": {"names/a": ["versions"], "names/a/versions": ["1", "2"]},
        "names/b": {"names/b": ["tags"], "names/b/tags": ["x"], "names/b/tags/x": ["1"]},
    }
