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
""".strip().splitlines()

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
    return template.format(**fields)


def _replies(text: str) -> list[str]:
    return [part.strip() for part in text.replace(".", ".|").replace("!", "!|").replace("?", "?|").split("|") if part.strip()]


def english_templates(seed: int, each: int = 24) -> list[str]:
    """About 1,900 different texts as a user might type them."""
    draw = random.Random(seed)
    filled = [fill(template, draw) for template in ENGLISH for _ in range(each)]
    return list(dict.fromkeys([*_replies(REPLIES), *ABBREVIATIONS, *filled]))


def mandarin_templates(seed: int, each: int = 20) -> list[str]:
    """About 330 different texts."""
    draw = random.Random(seed)
    filled = [fill(template, draw) for template in MANDARIN for _ in range(each)]
    return list(dict.fromkeys([*MANDARIN_REPLIES, *filled]))
