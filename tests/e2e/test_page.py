"""The page of `padlite serve` in a real browser: headless Chromium, driven as a person would, by roles and keys."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

import padlite
from tests.served import Served, serving

pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'padlite[test]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'padlite[serve]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, Request, expect, sync_playwright  # noqa: E402  skipped above where it isn't

QUESTION = "What should I do today?"
PATIENCE_MS = 60_000  # a machine that tests is busy
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def endless(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose model ends no answer by itself."""
    words = ("--model", str(random_base), "--context-length", "100000")
    with serving(tmp_path_factory.mktemp("endless"), *words) as server:
        yield server


@pytest.fixture
def view(browser: Browser) -> Iterator[Page]:
    """An empty tab; whatever the page complains about fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    yield tab
    context.close()
    assert complaints == []


def _opened(view: Page, served: Served, model: str = "padlite-tiny") -> Page:
    view.goto(served.url)
    view.get_by_role("combobox", name="Model and person").select_option(model)
    return view


def _say(view: Page, text: str) -> None:
    box = view.get_by_role("textbox", name="Your message")
    box.fill(text)
    box.press("Enter")
    _finished(view)


def _finished(view: Page) -> None:
    expect(view.locator(".answer").last).to_be_visible()
    expect(view.locator(".answer[aria-busy=true]")).to_have_count(0)
    expect(view.get_by_role("button", name="Stop")).to_be_disabled()


def _heard(view: Page, side: str) -> str:
    """Return the last answer of one side as it is seen, without the marks that say which dimension did it."""
    words = view.locator(f".{side}").last.locator("p").first
    text: str = words.inner_text()
    for mark in words.locator("sup, .hidden").all_inner_texts():
        text = text.replace(mark.strip(), "", 1)
    return " ".join(text.split())


def _reply(**weights: float) -> str:
    with padlite.open(padlite.Profile(preferences=weights, threads=1)) as chat:
        return " ".join(chat.reply(QUESTION).text.split())


def test_answers_are_those_of_the_api_plain_and_personal_side_by_side(view: Page, served: Served) -> None:
    requests: list[str] = []
    view.on("request", lambda request: requests.append(request.url))
    _opened(view, served, "padlite-tiny@ada")
    _say(view, QUESTION)
    plain, caring = _reply(), _reply(caring=1.0)
    assert plain != caring
    assert (_heard(view, "personal"), _heard(view, "plain")) == (caring, plain)
    assert "completions" in "".join(requests)
    assert [url for url in requests if not url.startswith((served.url, "data:"))] == [], "the page needs no network"


def test_a_person_brings_their_own_sliders(view: Page, served: Served) -> None:
    _opened(view, served, "padlite-tiny@ada")
    expect(view.get_by_role("slider", name="1 caring")).to_have_value("1")
    expect(view.get_by_role("slider", name="2 witty")).to_have_value("0")
    view.get_by_role("combobox").select_option("padlite-tiny@pirate")
    expect(view.get_by_role("slider", name="9 pirate")).to_have_value("1")


def test_what_a_text_stands_for_shows_when_it_is_read_and_can_be_corrected(view: Page, served: Served) -> None:
    with padlite.open(padlite.Profile(preference_text="I love jokes.", threads=1)) as chat:
        read = dict(chat.weights)
    assert any(read.values())
    _opened(view, served, "padlite-tiny@joker")
    witty = view.get_by_role("slider", name="witty")
    expect(witty).to_have_value("0")
    _say(view, QUESTION)

    def shown() -> dict[str, float]:
        return {name: float(view.get_by_role("slider", name=name).input_value()) for name in read}

    assert shown() == pytest.approx(read, abs=0.06)  # sliders have tenths
    witty.press("Home")
    _finished(view)
    assert shown() == pytest.approx({**read, "witty": -1.0}, abs=0.06)
    view.get_by_role("button", name="As in the profile").click()
    _finished(view)
    assert shown() == pytest.approx(read, abs=0.06)


def test_a_slider_is_coloured_between_nothing_and_its_value(view: Page, served: Served) -> None:
    slider = _opened(view, served).get_by_role("slider", name="caring")

    def coloured() -> tuple[float, float]:
        script = "(it, side) => Number(it.style.getPropertyValue(side))"
        start, end = (slider.evaluate(script, side) for side in ("--from", "--to"))
        return start, end

    assert coloured() == (0.5, 0.5)  # a wish of 0: no colour, and the knob in the middle
    slider.press("End")
    assert coloured() == (0.5, 1.0)
    slider.press("Home")
    assert coloured() == (0.0, 0.5)


def test_a_slider_moved_by_keys_answers_again_and_says_which_word_it_changed(view: Page, served: Served) -> None:
    _opened(view, served)
    _say(view, QUESTION)
    plain = _heard(view, "plain")
    assert _heard(view, "personal") == plain
    witty = view.get_by_role("slider", name="2 witty")
    witty.press("End")
    changed = view.locator(".word.changed").first
    expect(changed).to_be_visible()
    _finished(view)
    assert _heard(view, "plain") == plain
    assert _heard(view, "personal") != plain
    expect(changed).to_contain_text("because of witty")
    expect(view.get_by_role("status")).to_contain_text("Your wishes changed")
    expect(changed).to_have_css("color", "rgb(106, 59, 160)")  # witty's own, as its slider
    expect(view.locator(".wish").nth(1).locator("label")).to_have_css("color", "rgb(106, 59, 160)")
    view.get_by_role("button", name="All to 0").click()
    expect(view.locator(".word.changed")).to_have_count(0)


@pytest.mark.parametrize("by", ["focus", "hover"])
def test_a_changed_word_shows_the_candidates_and_escape_hides_them(view: Page, served: Served, by: str) -> None:
    _opened(view, served, "padlite-tiny@ada")
    _say(view, QUESTION)
    word, why = view.locator(".word.changed").first, view.get_by_role("tooltip")
    expect(why).to_be_hidden()
    word.focus() if by == "focus" else word.hover()
    expect(why).to_contain_text("because of caring")
    expect(why.get_by_role("row")).to_have_count(11)  # a head, and ten candidates
    expect(why.locator("tr.chosen")).to_have_count(1)
    expect(word).to_have_attribute("aria-describedby", "why")
    view.keyboard.press("Escape")
    expect(why).to_be_hidden()


def test_the_next_message_goes_on_from_what_was_said_and_a_new_chat_forgets_it(view: Page, served: Served) -> None:
    bodies: list[dict[str, object]] = []

    def note(request: Request) -> None:
        if request.method == "POST":
            bodies.append(request.post_data_json or {})

    view.on("request", note)
    _opened(view, served)
    view.get_by_role("checkbox", name="plain beside personal").uncheck()
    _say(view, QUESTION)
    answer = _heard(view, "personal")
    _say(view, "Why?")
    said = [("user", QUESTION), ("assistant", answer), ("user", "Why?")]
    messages = bodies[-1]["messages"]
    assert isinstance(messages, list)
    assert [(each["role"], " ".join(each["content"].split())) for each in messages] == said
    assert len(bodies) == 2, "without the comparison one answer is decoded"
    view.get_by_role("button", name="New chat").click()
    expect(view.locator(".answer")).to_have_count(0)
    _say(view, "Why?")
    assert bodies[-1]["messages"] == [{"role": "user", "content": "Why?"}]


def test_answering_again_replaces_the_answer(view: Page, served: Served) -> None:
    _opened(view, served)
    view.get_by_role("slider", name="Variety").fill("1.5")
    _say(view, QUESTION)
    heard = {_heard(view, "personal")}
    for _ in range(8):
        view.get_by_role("button", name="Answer again").click()
        _finished(view)
        heard.add(_heard(view, "personal"))
    assert len(heard) > 1
    expect(view.locator(".answer.personal")).to_have_count(1)


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_an_answer_can_be_stopped_and_the_next_one_follows(view: Page, endless: Served, by: str) -> None:
    view.goto(endless.url)
    box = view.get_by_role("textbox", name="Your message")
    box.fill("go on for ever")
    box.press("Enter")
    expect(view.locator(".answer p").first).to_have_text(re.compile(r"\S.{20}", re.DOTALL))
    assert view.locator(".answer").get_attribute("aria-busy") == "true", "it streams"
    stop = view.get_by_role("button", name="Stop")
    stop.click() if by == "button" else view.keyboard.press("Escape")
    expect(stop).to_be_disabled()
    expect(view.get_by_role("status")).to_contain_text("Stopped")
    box.fill("and now?")
    box.press("Enter")
    expect(view.locator(".answer").nth(1).locator("p").first).to_have_text(re.compile(r"\S.{20}", re.DOTALL))
    view.keyboard.press("Escape")
    expect(stop).to_be_disabled()


def test_what_was_written_stays_text_and_what_goes_wrong_is_an_alert(view: Page, served: Served) -> None:
    _opened(view, served)
    _say(view, "<img src=x onerror=alert(1)>")
    expect(view.locator(".said")).to_have_text("<img src=x onerror=alert(1)>")
    assert view.locator("#turns img").count() == 0
    box = view.get_by_role("textbox", name="Your message")
    box.fill("word " * 5000)
    box.press("Enter")
    expect(view.get_by_role("alert")).to_contain_text("1,024")
    expect(box).to_have_value(re.compile("^word "))  # given back, to be shortened
    expect(view.locator(".said")).to_have_count(1)
    _say(view, QUESTION)
    expect(view.get_by_role("alert")).to_have_text("")


def test_a_server_with_a_key_asks_for_it_on_the_page(view: Page, tmp_path: Path) -> None:
    with serving(tmp_path, extra={"PADLITE_API_KEY": "sesame"}) as server:
        view.goto(server.url)
        for key in ("wrong", "sesame"):
            view.get_by_label("This server wants its API key").fill(key)
            view.get_by_role("button", name="Use it").click()
            expect(view.get_by_role("alert")).to_have_text("" if key == "sesame" else re.compile("key"))
        expect(view.get_by_role("slider", name="1 caring")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_scheme_of_the_system(
    browser: Browser, served: Served, scheme: Literal["light", "dark"]
) -> None:
    context = browser.new_context(color_scheme=scheme)
    tab = context.new_page()
    tab.goto(served.url)
    ground = {"light": "rgb(251, 250, 247)", "dark": "rgb(22, 23, 25)"}[scheme]
    expect(tab.locator("body")).to_have_css("background-color", ground)
    context.close()


def test_every_control_has_a_name_and_the_keyboard_reaches_it(view: Page, served: Served) -> None:
    _opened(view, served)
    expect(view.get_by_role("slider")).to_have_count(10)
    view.get_by_role("textbox", name="Your message").focus()
    names: list[str] = []
    for _ in range(15):
        view.keyboard.press("Tab")
        focused = view.locator(":focus")
        if focused.count():
            names.append(focused.get_attribute("id") or "")
    assert names[:12] == ["send", *(f"wish-{number}" for number in range(8)), "strength", "temperature", "zero"]
