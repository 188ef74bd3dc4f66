"""Texts written for the training data: numbers, dates, money, times, questions, exclamations, names, short replies."""

# ruff: noqa: E501, SIM905 (word lists read better as running text)

from __future__ import annotations

import random

FIRST_NAMES = (
    "Anna Ben Carla David Emma Frank Grace Henry Isabel Jack Kate Liam Maria Noah Olivia Peter Rosa Sam Tina Victor "
    "Wendy Xavier Yusuf Zoe Alice Robert Susan Thomas Laura Michael Sarah James Priya Ahmed Mei Kenji Ingrid Pablo"
).split()
LAST_NAMES = (
    "Smith Jones Baker Carter Miller Davis Wilson Moore Taylor Clark Lewis Walker Young King Scott Green Hill Adams "
    "Nelson Campbell Parker Evans Turner Garcia Patel Chen Kim Novak Rossi Schmidt Dubois Okafor Tanaka"
).split()
PLACES = (
    "London Paris Berlin Boston Chicago Dublin Madrid Rome Toronto Sydney Tokyo Beijing Shanghai Seattle Denver "
    "Oxford Vienna Lisbon Geneva Houston Cairo Mumbai Nairobi Lima Oslo Prague Warsaw Austin Portland Edinburgh"
).split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
THINGS = (
    "book,red jacket,cup of coffee,train ticket,used car,bag of apples,blue umbrella,phone,pair of shoes,pizza,"
    "new laptop,wooden chair,concert ticket,bottle of milk,birthday cake,garden hose,winter coat,box of pencils,"
    "loaf of bread,guitar,bicycle,watch,camera,suitcase,blanket,toaster,newspaper,map of the city"
).split(",")
PLURALS = "apples books students chairs tickets birds houses letters coins miles pages eggs cars songs ships".split()
JOBS = "doctor teacher nurse lawyer farmer pilot baker driver painter singer writer dentist plumber judge".split()
FEELINGS = "happy sad angry tired excited worried surprised hungry nervous proud lonely calm afraid grateful".split()
VERBS = (
    "call me back,open the window,close the door,wait here,turn off the lights,read this letter,sit down,help me,"
    "bring your umbrella,listen to this,tell me the truth,try again,speak more slowly,pass the salt,come with us,"
    "follow the signs,send me the report,take the bus,feed the cat,lock the car,write it down,check the weather"
).split(",")
FOODS = "soup,fish and chips,a green salad,noodles,roast chicken,rice and beans,pancakes,fresh bread,ice cream".split(",")

ENGLISH = """
The meeting starts at {h}:{mm} {ampm} on {day}.
My train leaves at {h}:{mm} and arrives at {h2}:{mm2}.
Can you meet me at {h} o'clock?
It's {h}:{mm} already!
The {thing} costs ${dollars}.
I paid ${dollars}.{cents} for this {thing}.
That will be ${dollars}, please.
The {thing} is on sale for £{dollars}.
They raised ${million} million last year.
She was born on {month} {dayth}, {year}.
The contract was signed on {month} {d}, {year}.
See you on {day}, {month} {dayth}.
In {year}, the city had {thousand} inhabitants.
There are {n} {plural} in the room.
We counted {n} {plural} and {n2} {plural2}.
I need {n} {plural}, not {n2}!
About {percent}% of the {plural} were lost.
Sales grew by {percent}.{digit}% in {month}.
The temperature is {temp} degrees today.
It weighs {n}.{digit} kilograms.
The distance from {place} to {place2} is {hundred} miles.
Room {room} is on the {ordinal} floor.
This is the {ordinal} time I have told you.
He finished in {ordinal} place.
Chapter {n}, page {room}.
My name is {first} {last}.
Hello, {first}, how are you today?
Dr. {last} will see you now.
Mr. {last} and Mrs. {last2} live in {place}.
Ms. {last} moved from {place} to {place2} in {month}.
Have you ever been to {place}?
How far is {place} from {place2}?
What time is it in {place} right now?
Where did {first} put the {thing}?
Who gave {first} the {thing}?
Why is {first} so {feeling}?
How much is the {thing}?
Is this your {thing}, {first}?
Did you see the {thing} that {first} bought in {place}?
Would you like some {food}?
Could you please {verb}?
Please {verb}.
{first}, {verb}!
Don't forget to {verb}, {first}.
What a lovely {thing}!
I can't believe it, {first} is in {place}!
I am so {feeling}!
I feel {feeling} today.
Are you {feeling}?
{first} was {feeling}, but {first2} was {feeling2}.
My {job} told me to eat more {food}.
{first} wants to be a {job} when she grows up.
The {job} and the {job2} had {food} for dinner.
First {verb}, then {verb2}.
If you are {feeling}, {verb}.
Well, {first}, I think you should {verb}.
No, {first}, that is not my {thing}.
Yes, I will {verb} on {day}.
On {day} we are going to {place} with {first} and {first2}.
"I lost my {thing}," said {first}.
{first} asked, "Did you {verb}?"
We had {food}, {food2}, and {food3}.
It was {feeling} news for {first}... and then the {thing} arrived.
The {job} from {place}, who was always {feeling}, sold the {thing} for ${dollars}.
Flight {room} to {place} is delayed by {n} minutes.
Your order number is {room}.
Take {n} steps to the left, then {n2} to the right.
The score was {n} to {n2}.
""".strip().splitlines()

REPLIES = """
Yes. No. Maybe. Okay. Sure. Thanks. Thank you. Hello. Hi. Goodbye. Good morning. Good night. Good evening. Please. Sorry.
Of course. Not yet. Right now. No way! Really? Why? Why not? What? Who? Where? When? How? How come? Never. Always. Stop!
Go! Help! Wait! Look! Listen! Great! Wonderful! Amazing! Oh no! Ouch! Wow! Hooray! Well done! Come here. Sit down. Be quiet.
I see. I know. I don't know. I think so. I hope so. I love you. I hate it. Me too. You too. That's right. That's wrong.
That's enough. Not at all. No problem. No, thanks. Yes, please. Excuse me. Pardon me. Good luck! Happy birthday! Cheers!
See you soon. See you tomorrow. Take care. Have fun. Hurry up! Calm down. Let's go. Let me see. Let me think. Follow me.
It's me. It's over. It's raining. It's cold. I'm here. I'm tired. I'm fine. I'm lost. I'm so happy! I'm very sorry. Guess what?
Who is it? What is it? Where are you? How are you? How much? How many? How old? What time? Which one? This one. That one.
Nothing. Something. Everything. Nobody. Somebody. Everybody. Here. There. Left. Right. Up. Down. In. Out. On. Off. Hmm. Ah!
""".replace("\n", " ")

ABBREVIATIONS = """
NASA launched it in July.|The BBC and CNN reported the news.|She works for the FBI.|He has a PhD from MIT.|My PC has a new CPU.
The DVD is next to the TV.|We flew from JFK to LAX.|The CEO of IBM spoke first.|Send it by DHL, please.|The UK left the EU.
The USA has fifty states.|Open the PDF on your phone.|I saw a UFO!|The ATM is out of order.|He drives an SUV.|Call me ASAP.
The GPS lost its signal.|Ask the HR department.|Press OK to continue.|My WiFi is down again.|Turn left on Main St. please.
It is on Fifth Ave. near the park.|Prof. Green teaches math, art, etc.|St. Louis is hot in summer.|Jones vs. Baker was a hard case.
The PIN is secret.|An MRI scan takes an hour.|We need more RAM.|DNA tests are quick.|The VIP lounge is closed.|Pay the VAT online.
""".strip().replace("\n", "|").split("|")

MANDARIN = """
现在是{h}点{mm}分。
他今年{n}岁。
这本书{n}块钱。
我们有{n}个学生。
今天是{m}月{d}日。
她出生于{year}年{m}月。
从这里到那里有{hundred}公里。
气温是{temp}度。
请给我{n}杯咖啡。
你有{n}本书吗？
电影{h}点半开始。
一共{hundred}元。
百分之{percent}的人同意。
我住在{room}房间。
太好了！我们赢了{n}分！
会议改到{year}年{m}月{d}日下午{h}点。
这件衣服{dollars}.{cents}元，打{digit}折。
价格涨了{percent}.{digit}%，真贵！
请拨打电话{room}{hundred}{mm}{percent}。
第{n}章在第{room}页。
飞机{h}:{mm}起飞，别迟到。
{zh_place}离{zh_place2}有{hundred}公里。
我{zh_day}要去{zh_place}出差。
{zh_name}买了{n}个{zh_thing}。
{zh_name}和{zh_name2}在{zh_place}见面。
{zh_name}，你的{zh_thing}在哪儿？
你为什么不喜欢{zh_thing}？
我觉得这个{zh_thing}又好又便宜。
{zh_day}的天气怎么样？会下雨吗？
真没想到，{zh_name}居然去了{zh_place}！
要是{zh_day}有空，我们一起去{zh_place}吧。
他一边{zh_verb}，一边{zh_verb2}。
别{zh_verb}了，快来{zh_verb2}！
{zh_name}对我说：“请你{zh_verb}。”
先{zh_verb}，再{zh_verb2}，最后休息。
我有{zh_thing}、{zh_thing2}和{zh_thing3}。
这个{zh_thing}是谁的？是{zh_name}的吗？
""".strip().splitlines()

MIXED = """
我今天用{brand}给{first}发了一封email。
{first}住在{place}，{zh_name}住在{zh_place}。
这个{zh_thing}真的很cool。
我们{zh_day}去{place}开会。
请打开{brand}，然后点OK。
{first}说他很{feeling}。
你听说过{brand}吗？
他的英文名字叫{first} {last}。
这台{gadget}多少钱？{dollars}块。
{zh_name}在学{subject}，已经学了{n}天。
我的{gadget}坏了，能借我用一下吗？
我想吃{food}，你呢？
{first}，你好！欢迎来到{zh_place}。
老板让我把PPT发给{first}。
这是{brand}的新产品，{zh_name}非常喜欢。
周末一起去看{first}的live，怎么样？
她是一个{job}，在{place}工作了{n}年。
NBA的比赛{h}点开始。
Hi {first}，我是{zh_name}。
OK，没问题，{zh_day}见！
I told {first} that 你好 means hello.
My friend {zh_name} comes from {zh_place}.
The Chinese word for friend is 朋友.
How do you say 谢谢 in English, {first}?
""".strip().splitlines()
"""Two languages in one sentence, as people in offices speak."""

CHINESE_LISTS = dict(
    zh_name="小王 小李 张伟 王芳 李娜 刘洋 陈老师 赵先生 孙女士 周医生 吴经理 小明 小红 大伟 林小姐 黄师傅".split(),
    zh_place="北京 上海 广州 深圳 成都 杭州 西安 南京 武汉 重庆 天津 苏州 青岛 厦门 昆明 哈尔滨".split(),
    zh_day="星期一 星期二 星期三 星期四 星期五 星期六 星期天 今天 明天 昨天 后天 周末".split(),
    zh_thing="苹果 手机 电脑 杯子 书包 雨伞 自行车 照相机 蛋糕 西瓜 牛奶 面包 帽子 钥匙 沙发 词典 票 礼物 咖啡 毛衣".split(),
    zh_verb="唱歌 跳舞 吃饭 看书 睡觉 游泳 打电话 写作业 洗衣服 开车 做饭 聊天 跑步 喝茶 听音乐 打扫房间".split(),
    brand="Google Apple YouTube Netflix Amazon Facebook Twitter Windows WhatsApp Word Excel Photoshop Zoom Spotify".split(),
    gadget="iPhone iPad laptop tablet speaker keyboard printer DVD USB drone".split(),
    subject="Python Java English math history guitar yoga design cooking marketing".split(),
)  # fmt: skip

MANDARIN_REPLIES = (
    "好的。 是的。 不是。 谢谢！ 对不起。 没关系。 再见！ 你好！ 早上好。 晚安。 为什么？ 真的吗？ 怎么了？ 太棒了！ 我知道。 我不知道。 "
    "等一下。 快点！ 小心！ 没问题。 当然。 可能吧。 你呢？ 我也是。 请坐。 请进。 多少钱？ 几点了？ 谁？ 什么？ 在哪儿？ 走吧。 加油！"
).split()


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, …"""
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def fill(template: str, draw: random.Random) -> str:
    """A template with its fields drawn at random."""
    count = draw.choice([draw.randint(2, 12), draw.randint(2, 99), draw.randint(100, 999)])
    fields = {
        "h": draw.randint(1, 12), "h2": draw.randint(1, 12), "ampm": draw.choice(["a.m.", "p.m.", "AM", "PM"]),
        "mm": f"{draw.choice([5, 10, 12, 15, 20, 25, 30, 35, 40, 45, 50, 55, 58]):02d}",
        "mm2": draw.choice([10, 15, 20, 30, 45, 50]), "day": draw.choice(DAYS), "month": draw.choice(MONTHS),
        "d": draw.randint(1, 28), "dayth": ordinal(draw.randint(1, 28)), "m": draw.randint(1, 12),
        "year": draw.choice([draw.randint(1700, 1999), draw.randint(2001, 2029)]),
        "dollars": draw.choice([draw.randint(2, 20), draw.randint(20, 99), draw.randint(100, 950)]),
        "cents": draw.choice([25, 50, 75, 95, 99]), "million": draw.randint(2, 90), "n": count,
        "n2": draw.randint(13, 90), "percent": draw.randint(2, 98), "digit": draw.randint(1, 9),
        "temp": draw.randint(2, 40), "hundred": draw.randint(101, 990), "room": draw.randint(11, 890),
        "thousand": f"{draw.randint(2, 950)},{draw.randint(1, 9)}00", "ordinal": ordinal(draw.randint(1, 30)),
    }  # fmt: skip
    lists = dict(
        place=PLACES, first=FIRST_NAMES, last=LAST_NAMES, plural=PLURALS, job=JOBS, feeling=FEELINGS, verb=VERBS,
        food=FOODS, thing=THINGS,
    )  # fmt: skip
    for name, values in lists.items():
        fields[name], fields[f"{name}2"], fields[f"{name}3"] = draw.sample(values, 3)
    own_draw = random.Random(f"{template}{fields}")  # the English texts do not depend on the Chinese lists
    for name, values in CHINESE_LISTS.items():
        fields[name], fields[f"{name}2"], fields[f"{name}3"] = own_draw.sample(values, 3)
    return template.format(**fields)


def _replies(text: str) -> list[str]:
    return [part.strip() for part in text.replace(".", ".|").replace("!", "!|").replace("?", "?|").split("|") if part.strip()]


def english_templates(seed: int, each: int = 24) -> list[str]:
    """About 1,900 different texts as a user might type them."""
    draw = random.Random(seed)
    filled = [fill(template, draw) for template in ENGLISH for _ in range(each)]
    return list(dict.fromkeys([*_replies(REPLIES), *ABBREVIATIONS, *filled]))


def mandarin_templates(seed: int, each: int = 40) -> list[str]:
    """About 1,300 different texts."""
    draw = random.Random(seed)
    filled = [fill(template, draw) for template in MANDARIN for _ in range(each)]
    return list(dict.fromkeys([*MANDARIN_REPLIES, *filled]))


def mixed_templates(seed: int, each: int = 80) -> list[str]:
    """About 1,500 different texts of both languages."""
    draw = random.Random(seed)
    return list(dict.fromkeys(fill(template, draw) for template in MIXED for _ in range(each)))


def word_lists(words: list[str], count: int, seed: int) -> list[str]:
    """Two to four Chinese words in a row, so that syllables are heard that no sentence has."""
    draw = random.Random(seed)
    return [f"{'，'.join(draw.sample(words, draw.randint(2, 4)))}。" for _ in range(count)]
