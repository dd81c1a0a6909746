"""How does the model answer from the web? Search, open the page of that name, say it, cite."""

import hashlib
import json
from dataclasses import dataclass

from demo_model import vocabulary
from demo_model.chat import Conversation
from demo_model.draw import Draw
from demo_model.tasks import files
from demo_model.tasks.story import Story
from expertmesh.agent.tools.tool import Effect, Result, Source, Status
from expertmesh.agent.web.marking import marked

FACTS = {
    "founded": ("{name} was founded in {fact}.", "{name}成立于{fact}年。"),
    "height": ("{name} is {fact} metres high.", "{name}高{fact}米。"),
    "author": ("{name} was written by {fact}.", "{name}的作者是{fact}。"),
    "capital": ("The capital of {name} is {fact}.", "{name}的首都是{fact}。"),
    "people": ("{name} has {fact} inhabitants.", "{name}有{fact}人口。"),
    "version": ("The latest version of {name} is {fact}.", "{name}的最新版本是{fact}。"),
}
ANSWERS = {
    "founded": ("{name} was founded in {fact} [{n}].", "{name}成立于{fact}年[{n}]。"),
    "height": ("{name} is {fact} metres high [{n}].", "{name}高{fact}米[{n}]。"),
    "author": ("{name} was written by {fact} [{n}].", "{name}的作者是{fact}[{n}]。"),
    "capital": ("The capital of {name} is {fact} [{n}].", "{name}的首都是{fact}[{n}]。"),
    "people": ("{name} has {fact} inhabitants [{n}].", "{name}有{fact}人口[{n}]。"),
    "version": ("The latest version of {name} is {fact} [{n}].", "{name}的最新版本是{fact}[{n}]。"),
}
SHORT = {
    "founded": ("{name} founded", "{name}成立"), "height": ("{name} height", "{name}高度"),
    "author": ("{name} author", "{name}作者"), "capital": ("{name} capital", "{name}首都"),
    "people": ("{name} population", "{name}人口"), "version": ("{name} latest version", "{name}最新版本"),
}  # fmt: skip
HAN = "山河江湖海城林石金木水火土日月星云风雨雪花草龙虎马牛羊东南西北中上下大小高长青白红黑明光安平和新古"


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page that a search finds."""

    url: str
    title: str
    excerpt: str
    text: str


def subject(draw: Draw) -> str:
    """A name that nobody knows, so that it has to be looked up."""
    rng = draw.rng

    def pick() -> str:
        if not draw.english and rng.random() < 0.6:
            return "".join(rng.sample(HAN, rng.randint(2, 4)))
        word = vocabulary.invented_word(rng, 9).capitalize()
        return rng.choice(
            (
                word,
                word,
                f"{word} {rng.choice(vocabulary.words()).capitalize()}",
                f"{word} {rng.choice('ABCX')}{rng.randint(1, 9)}",
            )
        )

    return draw.operands(pick, lambda name: ("subject", name))


def fact_of(draw: Draw, tag: str) -> str:
    rng = draw.rng
    if tag == "founded":
        return str(rng.randint(1600, 2024))
    if tag == "height":
        return str(rng.randint(3, 8900))
    if tag == "people":
        return (
            f"{rng.randint(1, 999)},{rng.randint(0, 999):03}"
            if draw.english
            else str(rng.randint(1000, 9999999))
        )
    if tag == "version":
        return f"{rng.randint(0, 20)}.{rng.randint(0, 30)}.{rng.randint(0, 9)}"
    return (
        vocabulary.invented_word(rng, 8).capitalize()
        if draw.english
        else "".join(rng.sample(HAN, 2))
    )


def page_about(draw: Draw, name: str, tags: list[str], facts: dict[str, str]) -> Page:
    rng = draw.rng
    host = rng.choice(
        ("wiki.test", "encyclopedia.example", "example.org", "facts.example.com", "info.test")
    )
    slug = (
        hashlib.sha256(name.encode()).hexdigest()[:6]
        if not name.isascii()
        else name.lower().replace(" ", "-")
    )
    sentences = [draw.say(*FACTS[tag]).format(name=name, fact=facts[tag]) for tag in tags]
    sentences += [files.sentence(rng).rstrip("!.") + "." for _ in range(rng.randint(1, 4))]
    rng.shuffle(sentences)
    return Page(
        url=f"https://{host}/{slug}",
        title=rng.choice((name, f"{name} - {host}", f"{name} | {host}")),
        excerpt=draw.say(f"All about {name}", f"关于{name}的一切") + rng.choice(("", ".", "...")),
        text=" ".join(sentences) if draw.english else "".join(sentences),
    )


def make(draw: Draw) -> Conversation:
    tag, template = draw.phrase("research")
    rng = draw.rng
    story = Story(draw, "research", ("find", "open"))
    name = subject(draw)
    absent = rng.random() < 0.15
    tags = [other for other in rng.sample(tuple(FACTS), 3) if other != tag][:2]
    facts = {each: fact_of(draw, each) for each in FACTS}
    page = page_about(draw, name, tags if absent else [*tags, tag], facts)
    others = [
        page_about(draw, other, tags, {each: fact_of(draw, each) for each in FACTS})
        for other in (
            subject(Draw(rng=rng, language=draw.language)) for _ in range(rng.randint(0, 3))
        )
        if other != name
    ]
    pages = rng.sample([page, *others], len(others) + 1)
    story.user(template.format(name=name))
    query = draw.say(*SHORT[tag]).format(name=name)
    story.call(story.say("I have to look that up.", "需要查一下。"), "find", query=query)
    if rng.random() < 0.08:
        return _nothing(story, query, name)
    _show_hits(story, pages)
    story.call(
        story.say(f"I open the page about {name}.", f"打开关于{name}的网页。"), "open", url=page.url
    )
    number = _show_page(story, page, pages)
    if absent:
        story.answer(
            story.say("The page does not say it.", "网页里没有。"),
            story.say(f"I did not find that about {name}: the page does not say it [{number}].",
                      f"没有查到{name}的这项信息：网页里没有[{number}]。"),
        )  # fmt: skip
        return story.told()
    sentence = draw.say(*FACTS[tag]).format(name=name, fact=facts[tag])
    answer = draw.say(*ANSWERS[tag]).format(name=name, fact=facts[tag], n=number)
    story.answer(story.say(f"It says: {sentence}", f"网页说：{sentence}"), answer)
    return story.told()


def _show_hits(story: Story, pages: list[Page]) -> None:
    hits = [f"{page.title}\n{page.url}\n{page.excerpt}" for page in pages]
    text = marked("\n\n".join(hits), "the web")
    sources = tuple(Source.of(page.url, f"{page.title}\n{page.excerpt}") for page in pages)
    if story.agent_result(Effect.WEB, Result(Status.OK, text, sources)):
        return
    style = story.rng.randrange(3)
    if style == 0:
        found = [{"title": p.title, "url": p.url, "snippet": p.excerpt} for p in pages]
        text = json.dumps(found, ensure_ascii=False)
    elif style == 1:
        text = "\n".join(
            f"{n}. {p.title}\n   {p.url}\n   {p.excerpt}" for n, p in enumerate(pages, 1)
        )
    else:
        text = "\n\n".join(f"[{n}] {p.title}\n{p.url}\n{p.excerpt}" for n, p in enumerate(pages, 1))
    story.result(text)


def _show_page(story: Story, page: Page, pages: list[Page]) -> int:
    """The text of the page; returns the number to cite."""
    text = marked(f"URL: {page.url}\nTitle: {page.title}\n\n{page.text}", "the web")
    source = Source.of(page.url, page.text)
    if story.agent_result(Effect.WEB, Result(Status.OK, text, (source,))):
        return story.num_sources
    shape = story.rng.choice(("{t}", "{title}\n\n{t}", "# {title}\n{t}", "URL: {u}\n\n{t}"))
    text = shape.format(t=page.text, title=page.title, u=page.url)
    story.result(text)
    return pages.index(page) + 1


def _nothing(story: Story, query: str, name: str) -> Conversation:
    text = (
        f"Nothing was found for {query!r}; try other words."
        if story.box.is_agent
        else "No results."
    )
    story.result(text)
    story.answer(
        story.say("Nothing was found.", "没有找到。"),
        story.say(f"I found nothing about {name}.", f"没有找到关于{name}的内容。"),
    )
    return story.told()
