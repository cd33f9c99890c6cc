"""The blob store: addresses nobody can guess, equal content once, within a limit."""

from __future__ import annotations

import hashlib
import re
import threading

from workbench.blobs import PATH, BlobStore


def key_of(address: str) -> str:
    assert address.startswith(f"{PATH}/")
    return address.removeprefix(f"{PATH}/")


def test_what_is_put_is_got() -> None:
    store = BlobStore()
    key = key_of(store.put(b"sound", "audio/wav"))
    found = store.get(key)
    assert found is not None and (found.data, found.mime) == (b"sound", "audio/wav")
    assert re.fullmatch(r"[0-9a-f]{40}", key)
    assert store.get("0" * 40) is store.get("") is store.get("../" + key) is None


def test_equal_content_is_held_once_and_other_content_or_type_apart() -> None:
    store = BlobStore(limit=10)
    addresses = {store.put(b"12345678", "a/b") for _ in range(5)}
    assert len(addresses) == 1
    assert store.put(b"1", "a/b") not in addresses
    assert store.get(key_of(addresses.pop())) is not None  # five copies would not have fitted
    assert store.put(b"1", "a/c") != store.put(b"1", "a/b")


def test_a_key_cannot_be_worked_out_from_the_content() -> None:
    addresses = {BlobStore().put(b"sound", "audio/wav") for _ in range(3)}
    assert len(addresses) == 3
    digests = {hashlib.sha256(b"sound" + extra).hexdigest()[:40] for extra in (b"", b"audio/wav")}
    assert not {key_of(a) for a in addresses} & digests


def test_the_least_recently_used_goes_first() -> None:
    store = BlobStore(limit=30)
    a, b, c = (key_of(store.put(bytes([n]) * 10, "x/y")) for n in range(3))
    store.get(a)
    d = key_of(store.put(b"d" * 10, "x/y"))
    assert [store.get(k) is not None for k in (a, b, c, d)] == [True, False, True, True]
    store.put(bytes([0]) * 10, "x/y")  # puts a again, which also counts as use
    e = key_of(store.put(b"e" * 20, "x/y"))
    assert [store.get(k) is not None for k in (a, c, d, e)] == [True, False, False, True]


def test_one_that_is_too_large_is_held_alone() -> None:
    store = BlobStore(limit=10)
    small, large = key_of(store.put(b"s", "x/y")), key_of(store.put(b"l" * 50, "x/y"))
    assert store.get(small) is None and store.get(large) is not None
    again = key_of(store.put(b"s", "x/y"))
    assert store.get(large) is None and store.get(again) is not None


def test_the_limit_holds_with_many_writers() -> None:
    store, limit = BlobStore(limit=1000), 1000

    def write(seed: int) -> None:
        for number in range(200):
            store.put(bytes([seed]) * (1 + number % 90), "x/y")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = sum(len(blob.data) for blob in store._blobs.values())
    assert held == store._size <= limit and held > limit - 90
