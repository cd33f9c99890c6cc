"""A visitor's clips: kept on the server beyond a page reload, by workspace cookie, within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict

from models.clip import Clip

_LOCK = threading.Lock()
_CLIPS: OrderedDict[str, OrderedDict[str, Clip]] = OrderedDict()
CLIPS_EACH, BYTES_IN_ALL = 12, 2 * 2**30


def clip_id(clip: Clip) -> str:
    """Short id of a clip for addresses."""
    return f"u-{clip.content_hash[:16]}"


def remember(workspace: str, clip: Clip) -> str:
    """Add a clip to a workspace; returns its id. The oldest clips go when a limit is reached."""
    with _LOCK:
        own = _CLIPS.setdefault(workspace, OrderedDict())
        _CLIPS.move_to_end(workspace)
        own[clip_id(clip)] = clip
        own.move_to_end(clip_id(clip))
        while len(own) > CLIPS_EACH:
            own.popitem(last=False)
        while sum(c.waveform.nbytes for w in _CLIPS.values() for c in w.values()) > BYTES_IN_ALL:
            oldest = next(iter(_CLIPS.values()))
            if oldest is own and len(own) == 1:
                break
            if oldest:
                oldest.popitem(last=False)
            if not oldest:
                _CLIPS.popitem(last=False)
    return clip_id(clip)


def clips(workspace: str) -> dict[str, Clip]:
    """A workspace's clips by id, oldest first."""
    with _LOCK:
        return dict(_CLIPS.get(workspace, {}))
