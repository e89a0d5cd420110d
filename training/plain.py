"""Plain sentences of known polarity: every subject is praised and blamed alike.

In the reviews short sentences about books are mostly complaints, and none in English is about a product:
a model that has seen nothing else takes "this book" itself for blame. These sentences teach it that the
subject says nothing and the predicate all.
"""

from __future__ import annotations

import random


def _words(lines: str) -> list[str]:
    return lines.split()


def _phrases(lines: str) -> list[str]:
    return lines.strip().replace("\n", "|").split("|")


CHINESE_SUBJECTS = _words("""
这本书 书 这书 这本小说 这部电影 电影 这家酒店 酒店 房间 早餐 前台 服务 服务态度 客服 卖家
店家 快递 物流 包装 手机 这款手机 电脑 这台电脑 笔记本 平板 这个平板 屏幕 电池 音质 系统 速度
苹果 水果 橙子 牛奶 奶粉 味道 口感 衣服 裤子 这件衣服 面料 颜色 尺码 鞋子 洗发水 这款洗发水
香味 热水器 质量 做工 价格 东西 这个 产品 外观 性能 位置 环境 效果 内容 写得 演得 用起来
穿起来 吃起来
""")
CHINESE_GOOD = _words("""
真好 太好了 很好 非常好 挺好的 特别好 好极了 不错 很不错 真不错 非常不错 太棒了 很棒 一流
没得说 让人满意 很满意 非常满意 超出预期 比想象的好 值得推荐 值得买 很喜欢 真喜欢 太喜欢了
我很喜欢 大家都喜欢 好得很 完美 没有任何问题 没有失望 一点也不差 不差 强烈推荐 性价比很高 物超所值
会再来 下次还会买 给五星 很值
""")
CHINESE_BAD = _words("""
真差 太差了 很差 非常差 不好 很不好 不怎么样 不行 真不行 太烂了 很烂 糟糕 太糟糕了 让人失望
很失望 非常失望 失望透顶 不如预期 没有想象的好 不值得推荐 不值得买 不喜欢 真不喜欢 一点也不喜欢
大家都不喜欢 差得很 差劲 问题很多 不满意 很不满意 一点也不好 并不好 不推荐 性价比很低 不值这个价
不会再来 下次不会买了 想退货 给一星 浪费钱
""")
ENGLISH_SUBJECTS = _phrases("""
this book|the book|this film|the movie|the story|the acting|the hotel|our room|the breakfast
the staff|this phone|the phone|this tablet|my new laptop|the screen|the battery|the sound|the camera
the app|these shoes|this shirt|the fabric|the shampoo|the smell|the taste|the fruit|the milk
the price|the quality|the delivery|the service|the support|the seller|it|everything|this product
the heater|this one
""")
ENGLISH_GOOD = _phrases("""
I love {}|I really like {}|I am happy with {}|I am very happy with {}|I enjoyed {}|we loved {}
everyone likes {}|I recommend {}|{} is good|{} is great|{} is really good|{} is excellent
{} is perfect|{} is wonderful|{} was amazing|{} is not bad at all|{} is not bad
{} is better than expected|{} works well|no problems with {}|nothing wrong with {}
{} never disappoints|{} could not be better|I can't complain about {}
""")
ENGLISH_BAD = _phrases("""
I hate {}|I really dislike {}|I am not happy with {}|I am very unhappy with {}|I did not enjoy {}
we hated {}|nobody likes {}|I do not recommend {}|I don't like {}|{} is bad|{} is awful
{} is really bad|{} is terrible|{} is poor|{} was horrible|{} is not good at all|{} is not good
{} is worse than expected|{} does not work|many problems with {}|everything is wrong with {}
{} disappoints|{} could not be worse|I am disappointed with {}|not happy with {}
{} is nothing special
""")


def chinese(count: int, rng: random.Random) -> dict[str, float]:
    """Up to `count` sentences, each with its probability of being positive."""
    found: dict[str, float] = {}
    for _ in range(count):
        good = rng.random() < 0.5
        predicates = CHINESE_GOOD if good else CHINESE_BAD
        sentence = rng.choice(CHINESE_SUBJECTS) + rng.choice(predicates)
        if rng.random() < 0.3:
            sentence = rng.choice(CHINESE_SUBJECTS[:14]) + sentence
        if rng.random() < 0.5:
            sentence += rng.choice("，。,！ ") + rng.choice(predicates)
        found[sentence + rng.choice(("", "", "。", "！", "!"))] = float(good)
    return found


def english(count: int, rng: random.Random) -> dict[str, float]:
    """The same in English."""
    found: dict[str, float] = {}
    for _ in range(count):
        good = rng.random() < 0.5
        frames = ENGLISH_GOOD if good else ENGLISH_BAD
        sentence = rng.choice(frames).format(rng.choice(ENGLISH_SUBJECTS))
        if rng.random() < 0.3:
            sentence += rng.choice((", ", ". ", " and ")) + rng.choice(frames).format("it")
        found[sentence + rng.choice(("", "", ".", "!", " ."))] = float(good)
    return found
