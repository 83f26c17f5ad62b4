"""The pages in a real Chromium: a first day from set-up to a confirmed key, without scripts; light,
dark, narrow; what another site's page can and cannot do.

Debian's package `chromium` is used; without it the tests are skipped. Screenshots are left in
`.ci/screenshots`, for people to look at.
"""

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from registry.app import build, prepare
from registry.services.access.accounts import Accounts
from tests.support.accounts import PASSWORD, key_blob
from tests.support.backends import BACKENDS
from tests.support.server import Server, running

T = TypeVar("T")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = Path(__file__).resolve().parents[2] / ".ci" / "screenshots"
EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
FAINT = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.9) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push([element.tagName, element.textContent.trim().slice(0, 40), ratio]);
  }
  return faint;
}"""
UNNAMED = """() => [...document.querySelectorAll("input, select, textarea, button, a")]
  .filter((item) => item.type !== "hidden" && !item.hidden)
  .filter((item) => !(item.labels?.length || item.textContent.trim() || item.ariaLabel))
  .map((item) => item.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: the pages are not tried in a browser")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def with_accounts(data: Path, work: Callable[[Accounts], Awaitable[T]]) -> T:
    """Do something with the accounts of a data folder, as the command line does."""

    async def run() -> T:
        settings = BACKENDS.settings(data, auth=True)
        services = build(settings)
        try:
            return await work(services.accounts)
        finally:
            await services.accounts.close()
            await services.catalog.close()

    with ThreadPoolExecutor(1) as thread:  # playwright's own loop runs in this one
        return thread.submit(lambda: asyncio.run(run())).result()


@contextmanager
def started(data: Path, **environ: str) -> Iterator[Server]:
    prepare(BACKENDS.settings(data, auth=True))
    with running(data, **environ) as server:
        yield server


def new_context(browser: Browser, **options: bool) -> BrowserContext:
    context = browser.new_context(**options)  # type: ignore[arg-type]  # flags only
    context.set_default_timeout(10_000)
    return context


def new_page(browser: Browser) -> Page:
    return new_context(browser).new_page()


def look(page: Page, name: str) -> None:
    """Check what holds for every page, in both schemes and on a phone; leave pictures."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == page.locator("header").count() == 1
    for scheme, width in (("light", 1000), ("dark", 1000), ("light", 320)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # a literal it is
        page.set_viewport_size({"width": width, "height": 700})
        page.screenshot(path=SHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate(FAINT) == [], f"{name}, {scheme}: too little contrast"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(UNNAMED) == []


def test_the_welcome_page_while_authentication_is_off(browser: Browser, tmp_path: Path) -> None:
    with started(tmp_path / "data") as server:
        page = new_page(browser)
        page.goto(server.url)
        assert page.url == f"{server.url}/ui/"
        assert "Your model library is running" in page.inner_text("h1")
        look(page, "welcome")
        page.close()


def test_a_first_day_without_scripts(browser: Browser, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data, REGISTRY_AUTH="true") as server:
        code = with_accounts(data, lambda accounts: accounts.make_setup_code())
        context = new_context(browser, java_script_enabled=False)
        page = context.new_page()
        page.goto(server.url)
        assert page.url == f"{server.url}/ui/setup"
        page.fill("#code", code)
        page.fill("#name", "alice")
        page.fill("#password", PASSWORD)
        page.click("text=Make the account")
        assert page.url == f"{server.url}/ui/keys"

        page.fill("#key", f"ssh-ed25519 {key_blob(1)} me@laptop")
        page.fill("#title", "My laptop")
        page.click("text=Add the key")
        assert "The key is added" in page.inner_text("[role=status]")
        assert "My laptop" in page.inner_text("main")

        page.fill("#token-title", "CI")
        page.click("text=Make the key")
        text = page.inner_text(".secret")
        assert text.startswith("hf_")
        page.goto(f"{server.url}/ui/keys")
        assert text not in page.content()
        me = context.request.get(
            f"{server.url}/api/v1/me", headers={"Authorization": f"Bearer {text}"}
        )
        assert me.json()["name"] == "alice"

        link = with_accounts(data, lambda accounts: accounts.begin_enrolment(key_blob(2), "lab"))
        page.click("text=Sign out")
        page.goto(f"{server.url}/ui/enrol/{link}")
        page.fill("#name", "alice")
        page.fill("#password", "not the password")
        page.click("main button")
        assert "is wrong" in page.inner_text("[role=alert]")
        page.fill("#password", PASSWORD)
        page.click("main button")
        assert page.url == f"{server.url}/ui/enrol/{link}"
        assert "Confirm only a key of your own machine" in page.inner_text("main")
        page.click("text=It is mine")
        assert page.locator("section[aria-labelledby=ollama] li").count() == 2

        page.click("section[aria-labelledby=ollama] summary >> nth=0")
        page.click("text=Revoke this key >> nth=0")
        assert page.locator("section[aria-labelledby=ollama] li").count() == 1
        context.close()


def test_every_page_is_legible_and_runs_nothing_foreign(browser: Browser, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data, REGISTRY_AUTH="true") as server:
        page = new_page(browser)
        events: list[str] = []
        page.on("dialog", lambda dialog: events.append(dialog.message))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.goto(f"{server.url}/ui/setup")
        look(page, "setup")
        code = with_accounts(data, lambda accounts: accounts.make_setup_code())
        page.fill("#code", code)
        page.fill("#name", "alice")
        page.fill("#password", PASSWORD)
        page.click("text=Make the account")
        look(page, "keys-empty")
        page.fill("#key", f"ssh-ed25519 {key_blob(1)}")
        page.fill("#title", EVIL)
        page.click("text=Add the key")
        page.fill("#token-title", EVIL)
        page.click("text=Make the key")
        look(page, "key-made")
        page.goto(f"{server.url}/ui/keys?done=revoked")
        for summary in page.locator("summary").all():
            summary.click()
        look(page, "keys")
        link = with_accounts(data, lambda accounts: accounts.begin_enrolment(key_blob(2), EVIL))
        page.goto(f"{server.url}/ui/enrol/{link}")
        look(page, "enrol")
        page.goto(f"{server.url}/ui/enrol/{link}x")
        look(page, "gone")
        page.goto(f"{server.url}/ui/account")
        look(page, "account")
        page.fill("#old", "not the old one")
        page.fill("#new", PASSWORD)
        page.fill("#again", PASSWORD)
        page.click("text=Change the password >> nth=-1")
        look(page, "account-wrong")
        page.click("text=Sign out")
        look(page, "sign-in")
        page.keyboard.press("Tab")
        assert events == []
        assert "owned" not in page.title()
        page.close()


def test_the_keyboard_gets_everywhere(browser: Browser, tmp_path: Path) -> None:
    with started(tmp_path / "data", REGISTRY_AUTH="true") as server:
        page = new_page(browser)
        page.goto(f"{server.url}/ui/sign-in")
        assert page.evaluate("document.activeElement.id") == "name"
        page.keyboard.press("Shift+Tab")
        seen = [page.evaluate("document.activeElement.textContent.trim()")]
        for _ in range(8):
            page.keyboard.press("Shift+Tab")
            seen.append(page.evaluate("document.activeElement.textContent.trim()"))
        assert "Skip to the content" in seen
        page.close()


@contextmanager
def evil_site(target: str) -> Iterator[int]:
    """A page of somebody else that sends a form to `target` as soon as it is opened."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (
                f'<form method="post" action="{target}"><input name="key" value="x"></form>'
                "<script>document.forms[0].submit()</script>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_page_of_another_site_changes_nothing(browser: Browser, tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare(BACKENDS.settings(data, auth=True))
    with_accounts(data, lambda accounts: accounts.create_user("alice", PASSWORD))
    with started(data, REGISTRY_AUTH="true") as server:
        context = new_context(browser)
        page = context.new_page()
        page.goto(f"{server.url}/ui/sign-in")
        page.fill("#name", "alice")
        page.fill("#password", PASSWORD)
        page.click("main button")
        (session,) = [item for item in context.cookies() if item["name"] == "registry_session"]
        assert (session["httpOnly"], session["sameSite"]) == (True, "Lax")
        with evil_site(f"{server.url}/ui/sign-out") as port:
            for host in ("localhost", "127.0.0.1"):  # another site; another port of this one
                with page.expect_response("**/ui/sign-out") as caught:
                    page.goto(f"http://{host}:{port}/")
                assert caught.value.status in {303, 403}
        page.goto(f"{server.url}/ui/keys")
        assert page.url == f"{server.url}/ui/keys"
        with evil_site("about:blank") as port:
            page.goto(f"http://127.0.0.1:{port}/none")
            page.set_content(f'<iframe src="{server.url}/ui/keys"></iframe>')
            page.wait_for_timeout(300)
            assert all("Ollama keys" not in frame.content() for frame in page.frames)
        context.close()
