"""The page, in a browser."""

from __future__ import annotations

import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from docker.models.networks import Network
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from gateway.links import make_link
from gateway.nodes.layout import Layout
from gateway.nodes.work import LOCK
from tests.harness.browser import BROKEN, Browser, open_page, row_of
from tests.harness.engine import LAYOUT_BUCKET
from tests.harness.gateway import Gateway
from tests.harness.http import store
from tests.harness.layout import record_of, write_record
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id

PHOTO = 'Kiös "100%" \'n🍃'  # a file's name, which isn't ASCII and has what a header must not


@pytest.fixture
def elsewhere(stack: Stack) -> Network:
    """Another network, made before there is a browser, which takes a new one for a lost one."""
    return stack.add_network()


def test_a_person_uploads_looks_up_and_downloads(
    shared: Stack, four: Gateway, browser: Browser, tmp_path: Path
) -> None:
    open_page(browser, four)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    body, id = os.urandom(2_000_000), random_id()
    photo = tmp_path / f"{PHOTO}.png"
    photo.write_bytes(body)
    browser.find_element(By.ID, "file").send_keys(str(photo))
    own = browser.find_element(By.CSS_SELECTOR, "#uploads input")
    assert own.get_property("value") == "Kios100npng"
    own.clear()
    own.send_keys(id)
    browser.find_element(By.ID, "start").click()
    eventually(lambda: browser.text("uploads").split("\n")[0] == photo.name.replace("\n", " "))
    eventually(lambda: f"Stored as {id}" in browser.text("uploads"))
    browser.find_element(By.ID, "id").send_keys(id, Keys.ENTER)
    eventually(lambda: shared.owner(id).name in browser.text("found"))
    assert "image/png" in browser.text("found")
    assert "1.9 MiB (2,000,000 bytes)" in browser.text("found")
    assert photo.name in browser.text("found")
    answer = four.get(id)
    assert answer.body == body
    assert answer.headers["Content-Disposition"] == (
        """inline; filename="Ki_s _100__ 'n_.png"; """
        "filename*=UTF-8''Ki%C3%B6s%20%22100%25%22%20%27n%F0%9F%8D%83.png"
    )
    browser.find_element(By.CSS_SELECTOR, "#found a").click()
    eventually(lambda: browser.downloaded("Ki") == body)
    kept = photo.name.replace('"', "_")  # which no file system of Windows takes
    eventually(lambda: [file.name for file in browser.downloads.glob("Ki*")] == [kept])
    # a new id is made where none is given
    browser.find_element(By.ID, "file").send_keys(str(photo))
    browser.find_element(By.CSS_SELECTOR, "#uploads li:last-child input").clear()
    browser.find_element(By.ID, "start").click()
    stored = eventually(lambda: re.search(r"as ([a-z0-9]{16})\b", browser.text("uploads")))
    assert four.get(stored[1]).body == body
    eventually(lambda: re.search(r"Counted \d+ s ago", browser.text("counted")))
    eventually(
        lambda: re.search(r"\d+ % full, [\d.]+ GiB free", row_of(browser, shared.nodes[0].name))
    )
    browser.shoot_all("up")


def test_with_the_keyboard_alone_an_object_is_found_and_downloaded(
    shared: Stack, gateway: Gateway, browser: Browser
) -> None:
    id = random_id()
    gateway.put(id, b"for the keyboard", headers={"Content-Type": "text/plain"})
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    def reach(wanted: str) -> None:
        for _ in range(12):
            press(Keys.TAB)
            active = browser.switch_to.active_element
            if wanted in (active.get_attribute("id"), active.text):
                assert "solid" in active.value_of_css_property(
                    "outline"
                )  # it can be seen where one is
                return
        raise AssertionError(f"{wanted} can't be reached")

    reach("id")
    press(id, Keys.ENTER)
    eventually(lambda: shared.owner(id).name in browser.text("found"))
    reach("Download")
    press(Keys.ENTER)
    eventually(lambda: browser.downloaded(id) == b"for the keyboard")


def test_an_id_that_is_not_there_is_told_with_the_node_that_would_have_it(
    shared: Stack, gateway: Gateway, browser: Browser
) -> None:
    id = random_id()
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    browser.find_element(By.ID, "id").send_keys(id, Keys.ENTER)
    told = f"There is no object with this id. It would be on {shared.owner(id).name}."
    eventually(lambda: browser.text("found") == told)


def test_a_node_that_stops_is_seen_without_a_reload(faulty: Stack, browser: Browser) -> None:
    gateway, node = faulty.gateways[0], faulty.nodes[1]
    open_page(browser, gateway)
    eventually(lambda: "up" in row_of(browser, node.name))
    node.stop()
    eventually(lambda: "stopped" in row_of(browser, node.name))
    assert browser.text("summary") == f"{node.name} doesn't answer"
    assert browser.text("note") == (
        f"{node.name} is stopped, and its ids are refused with 503. Start it; or, if it is gone "
        f"for good, give up what it held: objgwctl.py remove --lost {node.name}"
    )
    for _ in range(30):
        for each in faulty.nodes:
            gateway.get(faulty.id_of(each))
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, "#plot .failed"))
    browser.shoot_all("stopped")
    node.start()
    eventually(lambda: browser.text("summary") == "All nodes answer")
    eventually(lambda: not browser.find_element(By.ID, "note").is_displayed())


def test_nodes_that_are_foreign_or_leave_are_shown_with_what_to_do(
    stack: Stack, elsewhere: Network, browser: Browser
) -> None:
    *_, leaves = stack.add_nodes("123")
    gateway = stack.add_gateway()
    gateway.wait_ready()
    eventually(lambda: all(not record_of(node).unrecorded for node in stack.nodes))
    for node in stack.nodes:
        store(gateway, id=stack.id_of(node))
    strange = stack.add_node("9", network=elsewhere)
    write_record(strange, Layout.first([strange.name]))
    stack.network.connect(strange.container)
    open_page(browser, gateway)
    eventually(lambda: "of another installation" in row_of(browser, strange.name))
    assert browser.text("summary") == "All nodes answer"
    assert browser.text("note").startswith(f"{strange.name} isn't used: it belongs to another ")
    assert f"objgwctl.py add {strange.name} takes it in" in browser.text("note")
    browser.shoot_all("foreign")
    elsewhere.disconnect(strange.container)
    strange.remove()

    assert gateway.ctl("remove", "--no-rebalance", leaves.name).code == 0
    eventually(lambda: "leaving, up" in row_of(browser, leaves.name))
    waiting = "Objects that aren't at their nodes yet wait for objgwctl.py rebalance"
    eventually(lambda: waiting in browser.text("note"))
    assert f"{leaves.name} can be stopped after that." in browser.text("note")
    browser.shoot_all("leaving")
    lock = json.dumps(
        {"holder": "a test", "since": time.time(), "until": time.time() + 300}
    ).encode()
    stack.nodes[0].client().put_object(LAYOUT_BUCKET, LOCK, io.BytesIO(lock), len(lock))
    eventually(lambda: "A rebalance is moving objects to their nodes" in browser.text("note"))
    assert waiting not in browser.text("note")
    stack.nodes[0].client().remove_object(LAYOUT_BUCKET, LOCK)
    eventually(lambda: waiting in browser.text("note"))
    leaves.stop()
    gone = f"{leaves.name} is stopped, and what it still holds is refused with 503."
    eventually(lambda: gone in browser.text("note"))
    assert browser.text("summary") == f"{leaves.name} doesn't answer"
    browser.shoot_all("leaving-stopped")
    leaves.start()
    assert gateway.ctl("rebalance").code == 0
    eventually(lambda: not browser.find_element(By.ID, "note").is_displayed())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off(
    shared: Stack, gateway: Gateway, browser: Browser, scheme: str
) -> None:
    id = shared.id_of(shared.nodes[0])
    gateway.put(id, b"small", headers={"Content-Type": "text/plain"})
    browser.look(360, 740, scheme)
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    browser.find_element(By.ID, "id").send_keys(id, Keys.ENTER)
    eventually(lambda: "text/plain" in browser.text("found"))
    assert browser.execute_script(BROKEN) == []
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == (scheme == "dark")
    eventually(lambda: re.search(r"Counted \d+ s ago", browser.text("counted")))
    browser.shoot(f"phone-{scheme}")


def test_with_tokens_the_page_shows_nothing_before_it_has_one(
    shared: Stack, browser: Browser
) -> None:
    gateway = shared.add_gateway({"OBJGW_TOKENS": "treepotato"})
    open_page(browser, gateway)
    eventually(lambda: browser.switch_to.active_element.get_attribute("id") == "token")
    assert not browser.find_element(By.ID, "content").is_displayed()
    browser.shoot("token")
    browser.switch_to.active_element.send_keys("wrong", Keys.ENTER)
    eventually(lambda: browser.text("token-result") == "The gateway doesn't know this token.")
    browser.find_element(By.ID, "token").send_keys("treepotato", Keys.ENTER)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    id = random_id()
    gateway.put(id, b"behind a token", headers={"Authorization": "Bearer treepotato"})
    browser.find_element(By.ID, "id").send_keys(id, Keys.ENTER)
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, "#found a"))
    browser.find_element(By.CSS_SELECTOR, "#found a").click()
    eventually(lambda: browser.downloaded(id) == b"behind a token")
    browser.refresh()  # nothing is kept
    eventually(lambda: browser.find_element(By.ID, "token").is_displayed())


# What a page makes of the gateway of another origin: what it could read, or that it couldn't.
FETCHES = """
const [url, token, link, done] = arguments;
const told = {};
async function ask(name, url, options) {
  try {
    const answer = await fetch(url, options);
    told[name] = [answer.status, Object.fromEntries(answer.headers), await answer.text()];
  } catch (error) {
    told[name] = error.name;
  }
}
const headers = {Authorization: token, "x-amz-meta-colour": "blue", "If-None-Match": "*"};
(async () => {
  await ask("put", url, {method: "PUT", headers, body: "0123456789"});
  await ask("again", url, {method: "PUT", headers, body: "again"});
  await ask("part", url, {headers: {Authorization: token, Range: "bytes=2-4"}});
  await ask("by link", link, {});
  await ask("without a token", url, {});
  await ask("no object", url + "x", {headers: {Authorization: token}});
  await ask("another method", url, {method: "PATCH", headers: {Authorization: token}});
  await ask("with cookies", url, {credentials: "include", headers: {Authorization: token}});
  await ask("delete", url, {method: "DELETE", headers: {Authorization: token}});
  done(told);
})();
"""


def test_a_page_of_another_origin_does_what_the_setting_allows(
    shared: Stack, gateway: Gateway, browser: Browser
) -> None:
    key, token, id = "k" * 32, "Bearer treepotato", random_id()[:20]
    settings = {"OBJGW_TOKENS": "treepotato", "OBJGW_LINK_KEY": key}
    settings["OBJGW_CORS_ORIGINS"] = f"http://{gateway.address}:3000 https://app.example"
    crossed = shared.add_gateway(settings)
    ready = {"Authorization": token}
    eventually(lambda: crossed.put(id, headers=ready).status == 200)
    assert crossed.delete(id, headers=ready).status == 204
    link = make_link(key, id, int(time.time()) + 3600)

    def fetched(origin: Gateway) -> dict[str, Any]:
        """What a page of this gateway is told; one that has no policy of its own."""
        browser.get(f"http://{origin.address}:3000/health/live")
        base = f"http://{crossed.address}:3000"
        told: dict[str, Any] = browser.execute_async_script(
            FETCHES, f"{base}/object/{id}", token, base + link
        )
        browser.complaints()  # each refused fetch is one
        return told

    told = fetched(gateway)
    assert {name: answer[0] for name, answer in told.items()} == {
        "put": 200,
        "again": 412,
        "part": 206,
        "by link": 200,
        "without a token": 401,
        "no object": 404,
        "another method": "T",  # a TypeError: the preflight doesn't list it
        "with cookies": "T",
        "delete": 204,
    }
    for name, header in (
        ("put", "etag"),
        ("part", "accept-ranges"),
        ("by link", "x-amz-meta-colour"),
        ("without a token", "www-authenticate"),
        ("no object", "x-request-id"),
    ):
        assert told[name][1][header]
    assert (told["part"][1]["content-range"], told["part"][2]) == ("bytes 2-4/10", "234")
    assert "There is no object" in told["no object"][2]
    # The setting doesn't have the origin of this one.
    other = shared.add_gateway()
    assert crossed.put(id, b"body", headers=ready).status == 200
    assert set(fetched(other).values()) == {"TypeError"}
    assert crossed.get(id, headers=ready).body == b"body"


def test_the_page_runs_only_what_is_its_own(gateway: Gateway, browser: Browser) -> None:
    open_page(browser, gateway)
    eventually(lambda: browser.text("summary") == "All nodes answer")
    assert browser.complaints() == []
    browser.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {text: "
        "'window.bad = 1'}))"
    )
    browser.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=/object/a onerror=window.bad=1>')"
    )
    assert browser.execute_script("return window.bad") is None
    assert len(browser.complaints()) >= 2


def test_the_page_shows_no_key_and_no_address(shared: Stack, gateway: Gateway) -> None:
    for path in ("/", "/status.json", "/health", "/metrics"):
        body = gateway.request("GET", path).body.decode()
        assert not [secret for secret in shared.secrets if secret in body]
        assert not re.search(r"https?://(?!www\.w3\.org)", body.split("# HELP")[0])
