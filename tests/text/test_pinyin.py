"""Chinese characters to pinyin, for vocabularies without characters."""

from __future__ import annotations

import pytest

from indextts.text.pinyin import to_pinyin


@pytest.mark.parametrize(
    "text, want",
    [
        ("大家好", "DA4 JIA1 HAO3"),
        ("重庆的重量", "CHONG2 QING4 DE5 ZHONG4 LIANG4"),  # the phrase decides how 重 is read
        ("句绝学", "JV4 JVE2 XVE2"),
        ("绿女略", "LV4 NV3 LVE4"),
        ("ni3hao3,nü3人ju4", "NI3 HAO3, NV3 REN2 JV4"),
        ("chong2新", "CHONG2 XIN1"),
        ("Hello, 'world' - 你好ABC", "Hello, 'world' - NI3 HAO3 ABC"),
        ("他说,'好!'然后…", "TA1 SHUO1,' HAO3!' RAN2 HOU4..."),
        ("café naïve", "cafe naive"),
        ("", ""),
    ],
)
def test_to_pinyin(text: str, want: str) -> None:
    assert to_pinyin(text) == want
