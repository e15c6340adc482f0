"""The page's objects, in a browser: the list, downloads, deletions, and several uploads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.harness.browser import Browser, open_page
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id, together

WRITES, READS, LARGEST = "treepotato", "baconpapaya", 1_000_000
SCRIPT = "<img src=x onerror=alert(1)>"  # text that would be more than text as HTML


@pytest.fixture(scope="module")
def guarded(shared: Stack) -> Gateway:
    """A gateway with a token that writes and one that reads, and with a largest object."""
    settings = {"OBJGW_TOKENS": WRITES, "OBJGW_READ_TOKENS": READS}
    gateway = shared.add_gateway({**settings, "OBJGW_MAX_OBJECT_BYTES": str(LARGEST)})
    reads = {"Authorization": f"Bearer {READS}"}
    eventually(lambda: gateway.request("GET", "/objects", headers=reads).status == 200)
    return gateway


def visit(browser: Browser, gateway: Gateway, token: str = "") -> None:
    """Opens the page, with this token where there is one."""
    open_page(browser, gateway)
    if token:
        eventually(lambda: browser.find_element(By.ID, "token").is_displayed())
        browser.find_element(By.ID, "token").send_keys(token, Keys.ENTER)
    eventually(lambda: browser.text("summary") == "All nodes answer")


def list_from(browser: Browser, prefix: str) -> None:
    field = browser.find_element(By.ID, "prefix")
    field.clear()
    field.send_keys(prefix, Keys.ENTER)


def listed(browser: Browser) -> list[str]:
    """The ids of the rows."""
    script = (
        "return [...document.querySelectorAll('#objects .plain')].map((each) => each.innerText)"
    )
    ids: list[str] = browser.execute_script(script)
    return ids


def press(browser: Browser, label: str) -> None:
    """Presses the button or link that a screen reader calls so."""
    browser.find_element(By.CSS_SELECTOR, f'[aria-label="{label}"]').click()


def choose(browser: Browser, files: Iterable[Path]) -> None:
    """Chooses files to upload, all at once."""
    browser.find_element(By.ID, "file").send_keys("\n".join(map(str, files)))


def rows(browser: Browser) -> list[str]:
    """What is told of each upload, beneath its bar."""
    script = "return [...document.querySelectorAll('#uploads .result')].map((e) => e.textContent)"
    told: list[str] = browser.execute_script(script)
    return told


def states(browser: Browser) -> list[str]:
    script = "return [...document.querySelectorAll('#uploads li')].map((each) => each.className)"
    found: list[str] = browser.execute_script(script)
    return found


def id_fields(browser: Browser) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, "#uploads input")


def slow(browser: Browser, bytes_per_second: float = -1) -> None:
    """Lets the browser send and receive so many bytes a second; any number without."""
    browser.execute_cdp_cmd("Network.enable", {})
    limits = dict.fromkeys(("downloadThroughput", "uploadThroughput"), bytes_per_second)
    command = {**limits, "latency": 0, "offline": False}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", command)


def begin_download(browser: Browser, id: str) -> None:
    """Begins a download that the page makes itself, slowly; returns when a part has come."""
    slow(browser, 30_000)
    press(browser, f"Download {id}")
    come = "return document.querySelector('#objects progress')?.value"
    eventually(lambda: 0 < (browser.execute_script(come) or 0) < 1)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[Path]]:
    """Makes files of these sizes, whose names begin so."""

    def make(prefix: str, *sizes: int) -> list[Path]:
        made = [tmp_path / f"{prefix}{number}" for number in range(len(sizes))]
        for path, size in zip(made, sizes, strict=True):
            path.write_bytes(os.urandom(size))
        return made

    return make


def test_the_list_is_browsed_and_filtered(gateway: Gateway, browser: Browser) -> None:
    prefix = random_id()[:20]
    ids = [f"{prefix}{number:03}" for number in range(205)]
    together(partial(gateway.put, id, b"x" * number) for number, id in enumerate(ids))
    named = {"Content-Disposition": f'inline; filename="{SCRIPT}"', "Content-Type": "text/x-odd"}
    gateway.put(ids[0], b"first", headers=named)
    visit(browser, gateway)
    list_from(browser, prefix)
    eventually(lambda: browser.text("count") == "100 objects shown, there are more")
    assert listed(browser) == ids[:100]
    press(browser, f"Details of {ids[0]}")
    eventually(lambda: SCRIPT in browser.text("objects"))
    assert "5 B (5 bytes)" in browser.text("objects")
    browser.shoot_all("list")
    for shown in (200, 205):
        browser.find_element(By.ID, "more").click()
        eventually(lambda shown=shown: listed(browser) == ids[:shown])
    assert browser.text("count") == "205 objects"
    assert not browser.find_element(By.ID, "more").is_displayed()
    # Who pressed "More" goes on with what came.
    focused = browser.switch_to.active_element.get_attribute("aria-label")
    assert focused == f"Details of {ids[200]}"
    list_from(browser, f"{prefix}20")
    eventually(lambda: listed(browser) == ids[200:205])
    list_from(browser, f"{prefix}x")
    eventually(lambda: browser.text("count") == f"No id begins with {prefix}x")
    list_from(browser, "no-id")
    assert browser.execute_script("return document.getElementById('prefix').matches(':invalid')")


def test_a_deletion_is_asked_for_first_with_the_keyboard_alone(
    gateway: Gateway, browser: Browser
) -> None:
    prefix = random_id()[:20]
    first, second, third = ids = [f"{prefix}{number}" for number in range(3)]
    together(partial(gateway.put, id, b"to be deleted") for id in ids)

    def keys(*pressed: str) -> None:
        ActionChains(browser).send_keys(*pressed).perform()

    def focused() -> str:
        active = browser.switch_to.active_element
        return active.get_attribute("aria-label") or active.text

    visit(browser, gateway)
    list_from(browser, prefix)
    eventually(lambda: listed(browser) == ids)
    for _ in range(10):  # from the list's field
        keys(Keys.TAB)
        if focused() == f"Delete {first}":
            break
    for no in (Keys.ENTER, Keys.ESCAPE):
        keys(Keys.ENTER)
        eventually(lambda: browser.text("sure-title") == f"Delete {first}?")
        assert "13 B" in browser.text("sure-text")
        assert focused() == "Cancel"
        browser.shoot_all("sure")
        keys(no)
        eventually(lambda: focused() == f"Delete {first}")
    assert gateway.head(first).status == 200
    assert listed(browser) == ids
    keys(Keys.ENTER)
    eventually(lambda: focused() == "Cancel")
    keys(Keys.TAB, Keys.ENTER)
    eventually(lambda: browser.text("listed") == f"{first} is deleted.")
    assert gateway.head(first).status == 404
    assert listed(browser) == [second, third]
    assert browser.text("count") == "2 objects"
    assert focused() == f"Details of {second}"
    # One that is gone meanwhile is said to be so, and can't be deleted less.
    assert gateway.delete(second).status == 204
    press(browser, f"Download {second}")
    gone = "There is no object with this id any more."
    eventually(lambda: gone in browser.text("objects"))
    press(browser, f"Delete {second}")
    browser.find_element(By.CSS_SELECTOR, "#sure .danger").click()
    eventually(lambda: listed(browser) == [third])
    press(browser, f"Download {third}")
    eventually(lambda: browser.downloaded(third) == b"to be deleted")


def test_what_writes_asks_for_a_token_that_may(
    shared: Stack, guarded: Gateway, browser: Browser, files: Callable[..., list[Path]]
) -> None:
    prefix = random_id()[:20]
    ids = [f"{prefix}{number}" for number in range(2)]
    body = os.urandom(300_000)
    for id in ids:
        shared.gateways[0].put(id, body)
    visit(browser, guarded, READS)
    list_from(browser, prefix)
    eventually(lambda: listed(browser) == ids)
    # A download is the page's own, since a link couldn't send the token.
    begin_download(browser, ids[1])
    press(browser, f"Cancel the download of {ids[1]}")
    eventually(lambda: "Cancelled." in browser.text("objects"))
    slow(browser)
    assert not browser.downloaded(ids[1])
    press(browser, f"Download {ids[1]}")
    eventually(lambda: browser.downloaded(ids[1]) == body)

    def delete() -> None:
        press(browser, f"Delete {ids[0]}")
        browser.find_element(By.CSS_SELECTOR, "#sure .danger").click()
        eventually(lambda: browser.find_element(By.ID, "writer").is_displayed())

    delete()
    browser.shoot_all("writer")
    field = browser.find_element(By.ID, "writer-token")
    for token, told in (
        ("wrong", "The gateway doesn't know this token."),
        (READS, "This token may only read, too."),
    ):
        field.send_keys(token, Keys.ENTER)
        eventually(lambda told=told: browser.text("writer-result") == told)
    field.send_keys(Keys.ESCAPE)
    eventually(lambda: not browser.find_element(By.ID, "writer").is_displayed())
    assert listed(browser) == ids  # the token that reads is still there
    list_from(browser, prefix)
    eventually(lambda: browser.text("count") == "2 objects")
    delete()
    field.send_keys(WRITES, Keys.ENTER)
    eventually(lambda: listed(browser) == ids[1:])
    assert shared.gateways[0].head(ids[0]).status == 404
    # From now on it is at hand. What is too large is refused with the gateway's reason.
    choose(browser, files(f"{prefix}up", LARGEST, 12 * LARGEST))
    browser.find_element(By.ID, "start").click()
    eventually(lambda: states(browser) == ["stored", "refused"])
    assert f"{LARGEST:,}" in rows(browser)[1] or str(LARGEST) in rows(browser)[1]
    assert shared.gateways[0].head(f"{prefix}up1").status == 404
    eventually(lambda: listed(browser) == [ids[1], f"{prefix}up0"])  # listed anew
    assert browser.text("uploaded") == "1 of 2 files stored"
    browser.shoot_all("refused")


def test_several_files_are_uploaded_three_at_a_time_and_can_be_cancelled(
    gateway: Gateway, browser: Browser, files: Callable[..., list[Path]]
) -> None:
    prefix = random_id()[:20]
    made = files(prefix, 0, *[600_000] * 5)
    visit(browser, gateway)
    choose(browser, made)
    assert [each.get_property("value") for each in id_fields(browser)] == [f.name for f in made]
    slow(browser, 50_000)
    browser.find_element(By.ID, "start").click()
    wanted = ["stored", *["sending"] * 3, *["waiting"] * 2]
    eventually(lambda: states(browser) == wanted)
    moves = "return [...document.querySelectorAll('#uploads progress')].map((each) => each.value)"
    eventually(lambda: all(0 < value < 1 for value in browser.execute_script(moves)[1:4]))
    assert browser.execute_script(moves)[4:] == [0, 0]
    browser.shoot_all("uploads")
    press(browser, f"Cancel {made[1].name}")
    press(browser, f"Cancel {made[5].name}")
    wanted = ["stored", "refused", *["sending"] * 3, "ready"]
    eventually(lambda: states(browser) == wanted)
    gateway.lines(f"PUT {made[1].name} ")  # else the browser may send the rest before it cancels
    slow(browser)
    eventually(lambda: states(browser) == ["stored", "refused", *["stored"] * 3, "ready"])
    assert rows(browser)[1] == "Cancelled. It is stored only if all of it had been sent already."
    for path in (made[0], *made[2:5]):
        assert gateway.get(path.name).body == path.read_bytes()
    for path in (made[1], made[5]):
        assert gateway.head(path.name).status == 404
    # The rest, with the next press; what is done can be taken off the page.
    browser.find_element(By.ID, "start").click()
    eventually(lambda: browser.text("uploaded") == "6 of 6 files stored")
    assert gateway.get(made[1].name).body == made[1].read_bytes()
    for path in made:
        press(browser, f"Remove {path.name}")
    assert browser.text("uploaded") == ""


def test_no_upload_replaces_an_object_unless_that_is_asked_for(
    gateway: Gateway, browser: Browser, files: Callable[..., list[Path]]
) -> None:
    prefix = random_id()[:20]
    (made,) = files(prefix, 5)
    gateway.put(made.name, b"old")
    visit(browser, gateway)
    choose(browser, [made])
    choose(browser, [made])
    second = id_fields(browser)[1]
    assert second.get_property("value") == f"{made.name}2"
    for wrong in ("a-b", made.name):  # no id; that of the other row
        second.clear()
        second.send_keys(wrong)
        browser.find_element(By.ID, "start").click()
        assert browser.execute_script("return arguments[0].matches(':invalid')", second)
        assert states(browser) == ["", ""]
    press(browser, f"Remove {made.name}")
    browser.find_element(By.ID, "start").click()
    eventually(lambda: states(browser) == ["refused"])
    assert rows(browser)[0].startswith("There is an object with this id already.")
    assert gateway.get(made.name).body == b"old"
    # One that came after the look is decided by the node.
    browser.execute_script("require_free = () => {}")
    browser.find_element(By.ID, "start").click()
    eventually(lambda: states(browser) == ["refused"])
    assert rows(browser)[0].startswith("There is an object with this id already.")
    assert gateway.get(made.name).body == b"old"
    browser.find_element(By.ID, "replaces").click()
    browser.find_element(By.ID, "start").click()
    eventually(lambda: states(browser) == ["stored"])
    assert gateway.get(made.name).body == made.read_bytes()


def test_what_is_cut_says_so_and_is_neither_stored_nor_saved(
    shared: Stack, guarded: Gateway, browser: Browser, files: Callable[..., list[Path]]
) -> None:
    prefix = random_id()[:20]
    id = f"{prefix}x"
    cut_file, gone = files(prefix, 600_000, 600_000)
    shared.gateways[0].put(id, bytes(30_000_000))  # more than waits on the way to a client
    visit(browser, guarded, WRITES)
    list_from(browser, prefix)
    eventually(lambda: listed(browser) == [id])
    begin_download(browser, id)
    choose(browser, [cut_file, gone])
    gone.unlink()
    assert guarded.workers()  # the first look takes long
    browser.find_element(By.ID, "start").click()
    eventually(lambda: states(browser) == ["sending", "refused"])
    assert rows(browser)[1].startswith("The file can't be read any more")
    eventually(lambda: browser.execute_script("return uploads[0].bar.value"))

    def cut() -> bool:
        # A browser sends an upload once more where a connection broke that it had used before.
        # That waits in the kernel until a worker accepts it, so only one that has may be killed.
        for worker, process in guarded.workers().items():
            if process.clients:
                guarded.run("sh", "-c", f"kill -9 {worker}")
        return states(browser) == ["refused"] * 2

    eventually(cut)
    assert rows(browser)[0].startswith("The connection broke off.")
    slow(browser)
    told = "The download broke off, and nothing was saved."
    eventually(lambda: told in browser.text("objects"))
    eventually(lambda: browser.text("summary") == "All nodes answer")
    assert not browser.downloaded(id)
    assert shared.gateways[0].head(cut_file.name).status == 404
    assert all("net::ERR_" in each for each in browser.complaints())


def test_what_a_node_that_is_down_has_is_refused_with_the_reason(
    faulty: Stack, browser: Browser, files: Callable[..., list[Path]]
) -> None:
    gateway, node = faulty.gateways[0], faulty.nodes[2]
    (made,) = files(random_id()[:20], 5)
    id = faulty.id_of(node)
    visit(browser, gateway)
    node.stop()
    eventually(lambda: gateway.head(id).status == 503)
    list_from(browser, id)
    eventually(lambda: "Without it the list would be incomplete." in browser.text("listed"))
    assert browser.text("count") == ""
    choose(browser, [made])
    id_fields(browser)[0].clear()
    id_fields(browser)[0].send_keys(id)
    browser.find_element(By.ID, "start").click()
    eventually(lambda: states(browser) == ["refused"])
    assert rows(browser) == ["The node of this id doesn't answer."]
    browser.find_element(By.ID, "replaces").click()  # then it isn't asked before
    browser.find_element(By.ID, "start").click()
    eventually(lambda: "." in rows(browser)[0] and "this id doesn't" not in rows(browser)[0])
    browser.shoot_all("down")
    node.start()
    eventually(lambda: gateway.head(id).status == 404)
    browser.find_element(By.ID, "start").click()
    eventually(lambda: states(browser) == ["stored"])
    list_from(browser, id)
    eventually(lambda: listed(browser) == [id])
