"""Emotions of a text without the 1.2 GB model: a linear classifier of its words, bundled, for English and Chinese.

A text is the set of its features: English words and their beginnings, Chinese characters and pairs of them, the marks
! and ?. Each feature has a weight for each of the eight emotions; their sum, made probabilities, is the answer.
Features are known by a hash only, and those that say little were dropped: see ``training/train_text_emotion.py``.
"""

from __future__ import annotations

import re
import zlib
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indextts.emotion import EMOTIONS, EmotionVector
from indextts.resources import TEXT_EMOTION

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX_LENGTHS = (4, 5, 6)
LEAST_WEIGHT = 0.05
"""Emotions with less than this probability are taken for noise."""

CALM: EmotionVector = tuple(float(name == "calm") for name in EMOTIONS)

_TOKEN = re.compile(r"¬[^ ]+|[a-z']+|[\u4e00-\u9fff]+|[!?]")
_NEGATED = re.compile(
    r"\b(?:not|never|isn't|aren't|wasn't|weren't) (?:(?:an?|at all|very|really|so|too|that|particularly|feeling) )?"
    r"([a-z']+)"
    "|(?:别|不|没有|没)(?:太|很|再|那么|用|必|要)?"
    "(高兴|开心|快乐|幸福|激动|难过|伤心|悲伤|害怕|恐惧|怕|担心|紧张|生气|愤怒|讨厌|反感|沮丧|失望|惊讶|吃惊)"
)
_SAME_MARKS = str.maketrans("！？’", "!?'")

# Characters of texts about feelings whose traditional form differs from the simplified one, in pairs.
_PAIRS = (
    "氣气憤愤傷伤難难過过懼惧驚惊訝讶嚇吓厭厌惡恶噁恶憂忧鬱郁歡欢樂乐興兴開开愛爱戀恋淚泪嘆叹歎叹煩烦惱恼罵骂討讨髒脏臟脏臉脸紅红綠绿藍蓝黃黄膽胆顫颤發发髮发聲声聽听說说話话語语講讲謝谢誰谁請请問问這这個个"
    "們们來来時时間间後后從从會会無无沒没為为爲为麼么嗎吗對对錯错還还讓让給给與与專专門门閉闭關关離离遠远進进運运邊边達达選选遺遗憶忆懷怀慘惨慚惭憐怜戰战鬥斗殺杀滾滚閃闪電电風风飛飞雲云霧雾陰阴陽阳陸陆陳陈"
    "隊队際际隨随險险隱隐雙双雜杂雞鸡靜静頂顶項项順顺須须預预頓顿領领頭头題题願愿顏颜顧顾顯显類类飯饭飲饮館馆馬马騙骗騎骑驗验體体魚鱼鮮鲜鳥鸟鳴鸣鴨鸭麗丽齊齐齒齿龍龙龜龟買买賣卖貴贵費费賀贺賞赏賠赔賤贱質质"
    "贏赢輸输輕轻車车軍军轉转農农連连遲迟適适鄰邻醜丑醫医釋释釣钓鈴铃銀银錢钱鎖锁鏡镜鐘钟長长陣阵階阶掃扫揮挥搖摇擁拥擇择擊击擔担據据擠挤擾扰攔拦敗败敵敌數数斷断於于書书條条東东極极榮荣樣样橋桥機机歲岁歷历"
    "殘残殼壳毀毁氈毡決决況况涼凉淒凄淨净減减渾浑溫温滅灭滿满漢汉潔洁濕湿災灾煙烟熱热燈灯燒烧爛烂爭争爺爷牆墙獎奖獨独獄狱獲获現现環环產产畢毕異异當当療疗癢痒瘋疯盜盗盡尽監监盤盘眾众睜睁確确礙碍禮礼禍祸種种"
    "稱称窮穷竊窃筆笔節节範范簡简糧粮紀纪約约純纯紙纸級级細细終终組组結结絕绝統统絲丝經经緊紧線线緩缓練练縣县縮缩總总織织繼继續续罰罚羅罗義义習习聞闻聯联職职腦脑腳脚腸肠膚肤膩腻臨临舉举舊旧艱艰莊庄萬万葉叶"
    "蕩荡蘇苏處处虛虚蟲虫蟻蚁術术衛卫裝装裡里裏里複复見见規规視视親亲覺觉觀观訂订計计記记許许設设訴诉診诊試试詩诗該该詳详誇夸認认誘诱誠诚誤误調调談谈論论諒谅諷讽謊谎識识議议護护讀读變变豐丰負负貧贫貪贪責责"
    "資资趕赶跡迹踐践蹤踪躍跃軟软較较辦办辭辞遊游園园圍围圓圆國国圖图團团場场塊块報报壓压壞坏壯壮夢梦夾夹奪夺奮奋妳你媽妈嬌娇孫孙學学宮宫實实寧宁寬宽寫写寶宝將将尋寻導导層层屍尸島岛師师帶带幫帮幹干幾几庫库"
    "廁厕廢废廣广廳厅彈弹強强彎弯徹彻悶闷慮虑慶庆態态應应懶懒戲戏戶户拋抛挾挟捨舍換换倆俩倉仓備备傑杰傢家傳传債债傾倾僅仅價价億亿優优儘尽兒儿兩两冊册凍冻剛刚創创劇剧劍剑勁劲動动務务勝胜勞劳勢势勵励勸劝區区"
    "協协卻却厲厉參参吶呐員员唄呗啞哑喚唤喪丧單单嗚呜嘔呕嘗尝嘩哗噴喷嚴严囂嚣蒼苍"
)
_TRADITIONAL = str.maketrans(_PAIRS[::2], _PAIRS[1::2])


class Weights(NamedTuple):
    """The classifier. A feature's row of ``weights`` is found by its hash in ``keys``, which are sorted."""

    keys: np.ndarray  # [K] uint32
    weights: np.ndarray  # [K, 8] int8
    scale: np.ndarray  # [1] float32: what a weight of 1 is worth
    bias: np.ndarray  # [8] float32


class BundledTextEmotion:
    """Finds the emotions of an English or Chinese text. Loads its weights at the first call, in milliseconds.

    Args:
        path: where the weights are.
    """

    name = "bundled"

    def __init__(self, path: Path = TEXT_EMOTION) -> None:
        self.path = path

    @cached_property
    def weights(self) -> Weights:
        from safetensors.numpy import load_file

        return Weights(**load_file(self.path))

    def __call__(self, description: str) -> EmotionVector:
        """The eight weights of ``description``: probabilities, small ones left out. Of no known word: calm."""
        found = self.weights.keys.searchsorted(hashes := hashed(description))
        known = self.weights.keys.take(found, mode="clip") == hashes
        if not known.any():
            return CALM
        total = self.weights.weights[found[known]].sum(axis=0, dtype=np.int64) / np.sqrt(len(hashes))
        logits = total * float(self.weights.scale[0]) + self.weights.bias
        likely = np.exp(logits - logits.max())
        likely /= likely.sum()
        return tuple(round(float(value), 4) if value >= LEAST_WEIGHT else 0.0 for value in likely)


def hashed(text: str) -> np.ndarray:
    """The different features of ``text`` as hashes, uint32 ``[N]``, sorted."""
    return np.unique(np.fromiter((zlib.crc32(f.encode()) for f in set(features(text))), np.uint32))


def features(text: str) -> Iterator[str]:
    """What of ``text`` counts; see the module. A negated word, as in "not happy", counts as one of its own."""
    text = text.lower().translate(_SAME_MARKS).translate(_TRADITIONAL)
    text = _NEGATED.sub(lambda found: f" ¬{found[1] or found[2]} ", text.replace("¬", ""))
    for token in _TOKEN.findall(text):
        if token[0] in "¬!?":
            yield token
        elif token[0] >= "\u4e00":
            yield from token
            yield from map("".join, pairwise(token))
        else:
            yield f"{token} "
            yield from (token[:length] for length in PREFIX_LENGTHS if len(token) >= length)
