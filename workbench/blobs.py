"""Bytes that the browser fetches: sound and pictures, by an address nobody can guess, held within a limit."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

PATH = "/earwitness/blobs"


@dataclass(frozen=True)
class Blob:
    """Bytes and their MIME type."""

    data: bytes
    mime: str


class BlobStore:
    """Content by key; equal content is held once, the least recently used goes when `limit` bytes are exceeded."""

    def __init__(self, limit: int = 768 * 2**20) -> None:
        self.limit = limit
        self._secret = secrets.token_bytes(32)
        self._blobs: OrderedDict[str, Blob] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def put(self, data: bytes, mime: str) -> str:
        """Hold bytes; returns their URL path.

        The key is a keyed hash: knowing a file is not enough to find out whether somebody else uploaded it.
        """
        key = hmac.new(self._secret, hashlib.sha256(data).digest() + mime.encode(), hashlib.sha256).hexdigest()[:40]
        with self._lock:
            if key in self._blobs:
                self._blobs.move_to_end(key)
            else:
                self._blobs[key] = Blob(data, mime)
                self._size += len(data)
                while self._size > self.limit and len(self._blobs) > 1:
                    _, old = self._blobs.popitem(last=False)
                    self._size -= len(old.data)
        return f"{PATH}/{key}"

    def get(self, key: str) -> Blob | None:
        """The bytes of a key, None if it is unknown or gone."""
        with self._lock:
            blob = self._blobs.get(key)
            if blob is not None:
                self._blobs.move_to_end(key)
            return blob


STORE = BlobStore()
