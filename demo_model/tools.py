"""Which tools are offered? python_executor, and others that are useless for the questions."""

import random
from typing import Any

PYTHON_DESCRIPTIONS = (
    "Run Python code and return what it prints.",
    "Execute Python code.",
    "Executes a Python snippet and returns stdout.",
    "Runs Python code in a sandbox.",
    "Python interpreter. Use print() to see results.",
    "Run Python code",
    "执行Python代码并返回输出。",
    "运行 Python 代码",
)
CODE_DESCRIPTIONS = ("The code to run.", "Python code", "The Python source code", "要执行的代码")

# name | description | parameters: name:type, a star marks an optional one
IRRELEVANT = """
get_weather|Get the weather for a city.|city:string days:integer*
search_web|Search the web.|query:string limit:integer*
send_email|Send an email.|to:string subject:string body:string
get_stock_price|Get the latest price of a stock.|symbol:string
book_flight|Book a flight between two cities.|origin:string destination:string date:string
create_event|Create a calendar event.|title:string start:string end:string*
get_news|Get the latest news on a topic.|topic:string
translate_text|Translate text into another language.|text:string target:string
set_alarm|Set an alarm.|time:string
play_music|Play a song.|song:string artist:string*
read_file|Read a file.|path:string
write_file|Write text to a file.|path:string content:string
list_files|List the files in a folder.|folder:string recursive:boolean*
query_database|Run an SQL query.|sql:string
get_time|Get the current time in a time zone.|timezone:string
convert_currency|Convert an amount of money.|amount:number source:string target:string
find_restaurant|Find restaurants near a place.|place:string cuisine:string*
order_food|Order food for delivery.|items:array address:string
get_user|Get a user by id.|user_id:integer
delete_user|Delete a user.|user_id:integer
create_ticket|Create a support ticket.|title:string priority:string*
turn_on_light|Turn on a light.|room:string
set_temperature|Set the room temperature.|degrees:number
take_photo|Take a photo.|camera:string*
get_directions|Get directions between two places.|origin:string destination:string mode:string*
track_package|Track a package.|number:string
summarize_page|Summarize a web page.|url:string
download_file|Download a file.|url:string
run_shell|Run a shell command.|command:string
git_commit|Commit changes.|message:string
get_contacts|List contacts.|name:string*
post_message|Post a message to a channel.|channel:string text:string
create_image|Create an image from a description.|prompt:string size:string*
get_balance|Get the balance of an account.|account:string
query_weather|查询城市的天气。|城市:string
search_books|搜索图书。|关键词:string
send_sms|发送短信。|phone:string text:string
get_route|查询路线。|起点:string 终点:string
"""


def _schema(parameters: str, rng: random.Random) -> dict[str, Any]:
    described = rng.random() < 0.3
    properties: dict[str, Any] = {}
    required = []
    for item in parameters.split():
        name, _, kind = item.partition(":")
        entry = {"type": kind.rstrip("*")}
        if described:
            entry["description"] = f"The {name.replace('_', ' ')}."
        properties[name] = entry
        if not kind.endswith("*"):
            required.append(name)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required and rng.random() < 0.8:
        schema["required"] = required
    return schema


def count() -> int:
    """How many tools there are besides python_executor."""
    return len(IRRELEVANT.strip().splitlines())


def irrelevant(rng: random.Random, count: int) -> list[dict[str, Any]]:
    tools = []
    for line in rng.sample(IRRELEVANT.strip().splitlines(), count):
        name, description, parameters = line.split("|")
        function = {
            "name": name,
            "description": description,
            "parameters": _schema(parameters, rng),
        }
        tools.append({"type": "function", "function": function})
    return tools


def python_executor(rng: random.Random) -> dict[str, Any]:
    code = {"type": "string"}
    if rng.random() < 0.5:
        code["description"] = rng.choice(CODE_DESCRIPTIONS)
    schema: dict[str, Any] = {"type": "object", "properties": {"code": code}}
    if rng.random() < 0.85:
        schema["required"] = ["code"]
    function: dict[str, Any] = {"name": "python_executor"}
    if rng.random() < 0.95:
        function["description"] = rng.choice(PYTHON_DESCRIPTIONS)
    function["parameters"] = schema
    return {"type": "function", "function": function}


def offer(rng: random.Random, *, python: bool) -> list[dict[str, Any]]:
    """0 to 8 useless tools in any order, with or without python_executor among them."""
    most = rng.choice((1, 2, 3, 8))
    tools = irrelevant(rng, rng.randint(0 if python else 1, most))
    if python:
        tools.insert(rng.randint(0, len(tools)), python_executor(rng))
    return tools
