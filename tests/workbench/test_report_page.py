"""A report's sounds and pictures: each is in the file once, and every player gets the ones it asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from models.checkpoint import load_recognizer
from models.clip import Clip
from saliency.listening import listen
from tests.models.tiny_families import sound
from tests.workbench.playback_models import write_checkpoint
from workbench.analysis import AnalysisSettings, analyze_with_sound
from workbench.figures import data_url, player_data
from workbench.playback_report import listening_report
from workbench.playback_view import clip_player, through_player
from workbench.report import report_html
from workbench.report_page import Media, embedded, report_page


def media_of(page: str) -> dict[str, str]:
    found = re.search(r"const MEDIA = new Map\(Object\.entries\((.*)\)\);\n", page)
    assert found is not None
    return json.loads(found.group(1))


def shown(page: str) -> list[Any]:
    """What every component of a page is given, with URLs for the names of media."""
    media = media_of(page)

    def with_media(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: with_media(part) for key, part in value.items()}
        if isinstance(value, list):
            return [with_media(part) for part in value]
        return media.get(value, value) if isinstance(value, str) else value

    starts = re.finditer(r"create\(document\.getElementById\(\"[\w-]+\"\), withMedia\(", page)
    return [with_media(json.JSONDecoder().raw_decode(page, start.end())[0]) for start in starts]


def test_equal_media_have_one_name_and_others_have_others() -> None:
    media = Media()
    first = media.put(b"one", "audio/wav")
    assert media.put(b"one", "audio/wav") == first
    names = {first, media.put(b"two", "audio/wav"), media.put(b"one", "image/png")}
    assert len(names) == 3
    page = report_page("title", "", media, player=False)
    assert media_of(page)[first] == data_url(b"one", "audio/wav") and set(media_of(page)) == names


@pytest.mark.parametrize("of_analysis", [True, False])
def test_a_clip_that_is_shown_twice_is_in_the_report_once(tmp_path: Path, of_analysis: bool) -> None:
    recognizer = load_recognizer(str(write_checkpoint(tmp_path)))
    clip = Clip.from_array(sound(1.0), 16000, "tones.wav")
    if of_analysis:
        analysis, parts = analyze_with_sound(
            clip, recognizer, AnalysisSettings(method="gradient", views=("listening",))
        )
        assert parts is not None and analysis.listening is not None
        listening, page = analysis.listening, report_html(clip, analysis, parts)
        expected = [player_data(clip, analysis, parts, data_url)]
    else:
        listening = listen(clip, recognizer, None)
        page, expected = listening_report(clip, listening, "Tiny"), []
    through = through_player(clip, listening, data_url)
    assert through is not None
    expected += [clip_player(clip, listening, data_url), through[0]]
    assert shown(page) == [json.loads(json.dumps(data.as_json())) for data in expected]
    urls = list(media_of(page).values())
    assert len(set(urls)) == len(urls) and all(page.count(url) == 1 for url in urls)


def test_texts_that_look_like_names_stay_as_they_are() -> None:
    media = Media()
    clip = Clip.from_array(sound(0.5), 16000, "x.wav")
    data = player_data(clip, None, None, media.put).model_copy(update={"title": "__proto__ </script><!-- media:x"})
    page = report_page("title", embedded("player", "player", data), media)
    assert shown(page)[0]["title"] == "__proto__ </script><!-- media:x" and page.count("</script>") == 3
