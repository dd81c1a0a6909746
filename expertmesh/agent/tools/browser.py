"""Read a page of the web whose text is made by scripts."""

from typing import Any, Protocol

from expertmesh.agent.tools.fetch import PAGE_PARAMETERS, shown_part
from expertmesh.agent.tools.tool import Effect, Result, Status
from expertmesh.agent.web.browser.launch import LaunchError
from expertmesh.agent.web.browser.page import LoadedPage
from expertmesh.agent.web.guard import Guard, NoSuchHostError, RefusedError
from expertmesh.agent.web.page_text import html_page
from expertmesh.agent.web.proxy import REFUSED_WORD
from expertmesh.agent.web.urls import BadUrlError, parse_url


class LoadsPages(Protocol):
    """As `Browser` in web/browser does."""

    async def load(self, url: str) -> LoadedPage: ...


class BrowserTool:
    """Loads a page in a headless browser, and reads it as `fetch` does."""

    name = "browser"
    description = (
        "Load a page of the web in a browser, let its scripts run, and read its text. Slower than "
        "fetch: use it where fetch finds no text. Long pages come in parts, from `start` on."
    )
    parameters = PAGE_PARAMETERS
    effect = Effect.WEB

    def __init__(self, browser: LoadsPages, guard: Guard):
        self._browser = browser
        self._guard = guard

    async def call(self, arguments: dict[str, Any]) -> Result:
        try:
            url = parse_url(arguments["url"])
            await self._guard.addresses(url.host, url.port)  # the proxy checks again
            loaded = await self._browser.load(str(url))
        except RefusedError as error:
            return Result(Status.REFUSED, str(error))
        except TimeoutError:
            return Result(Status.TIMED_OUT, "the page took too long in the browser")
        except (BadUrlError, NoSuchHostError, LaunchError) as error:
            return Result(Status.FAILED, str(error))
        visited = loaded.visited
        notes = [f"Not loaded: {reason}" for reason in loaded.refused]
        if visited.problem:
            return Result(Status.FAILED, "\n".join([visited.problem, *notes]))
        page = await html_page(visited.html, visited.url)
        if notes and page.text.startswith(REFUSED_WORD):  # a redirect led there, or a script
            return Result(Status.REFUSED, "\n".join([f"{url} leads to what is refused", *notes]))
        try:
            place = str(parse_url(visited.url))
        except BadUrlError:  # a page of the browser's own, or one that a script wrote
            return Result(Status.FAILED, "\n".join([f"{url} could not be loaded", *notes]))
        if visited.status >= 400:
            notes.insert(0, f"Status: {visited.status}")
        return shown_part(page, place, int(arguments.get("start", 0)), notes)
