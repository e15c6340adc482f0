"""docs/clients.md: its programs do what it says, also where connections are cut and nodes are busy.

Each language's blocks are one program. It gets an ending here which does one thing. Those are run
whose interpreter is there: in the tests' image that is the shell with curl, Python, and the
browser; with node and go in the PATH also these.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.browser import Browser
from tests.harness.engine import CHECKOUT
from tests.harness.flaky import BUSY_SECONDS, Fault, Flaky
from tests.harness.gateway import Gateway
from tests.harness.stack import Stack
from tests.harness.waiting import eventually, random_id, still_network

TOKEN = {"Authorization": "Bearer first"}
REPORT = "".join(f"{number}\n" for number in range(40_000)).encode()
STREAMED = "".join(f"{number}\n" for number in range(1, 100_001)).encode()
STORED, THERE = "It is stored.\n", "There is one already.\n"


@cache
def blocks(language: str) -> list[str]:
    """The blocks of the document that are in this language, by the words after their fence."""
    text = (CHECKOUT / "docs" / "clients.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


class Ran(NamedTuple):
    """What a program printed and downloaded, and whether it failed."""

    failed: bool
    output: str
    errors: str
    copy: bytes


def run(command: list[str], folder: Path, gateway: str, token: str) -> Ran:
    """A program's run in a folder that has the report."""
    folder.mkdir(exist_ok=True)
    (folder / "report.pdf").write_bytes(REPORT)
    env = {**os.environ, "GATEWAY": gateway, "TOKEN": token}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    copy = folder / "copy.pdf"
    found = copy.read_bytes() if copy.exists() else b""
    return Ran(done.returncode != 0, done.stdout, done.stderr, found)


class Client:
    """A program, which does one thing with an object, or with a prefix of ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def do(self, what: str, id: str, gateway: str, token: str = "first", at: str = "a") -> Ran:
        return run(self.command(what, id), self.folder / at, gateway, token)

    def command(self, what: str, id: str) -> list[str]:
        raise NotImplementedError


class Curl(Client):
    ORDER = ("put_get", "download", "create", "swap", "list", "pages", "stream")

    def command(self, what: str, id: str) -> list[str]:
        setup, *others = blocks("sh")
        text = others[self.ORDER.index(what)]
        text = re.sub(r"report[123](?!\.pdf)|count1|(?<=prefix=)report", id, text)
        more = "cat list.ndjson\n" if what == "list" else ""
        return ["sh", "-c", f"{setup}\n{text}\n{more}"]


PYTHON = """
import sys
what, name = sys.argv[1:]
if what == "put_get":
    with open("report.pdf", "rb") as report:
        put(name, report)
    with open("copy.pdf", "wb") as copy:
        copy.write(get(name).content)
elif what == "download":
    download(name, "copy.pdf")
elif what == "create":
    print("It is stored." if create(name, b"made") else "There is one already.")
elif what == "swap":
    swap(name, lambda body: b"%d\\n" % (int(body) + 1))
elif what == "stream":
    put_generated(name, (b"%d\\n" % number for number in range(1, 100_001)))
else:
    for each in listed(name) if what == "list" else listed_by_pages(name, 2):
        print(json.dumps(each))
"""


class Python(Client):
    def command(self, what: str, id: str) -> list[str]:
        return [sys.executable, "-c", "\n".join([*blocks("python"), PYTHON]), what, id]


NODE = """
import {readFileSync, writeFileSync} from "node:fs";
import {Readable} from "node:stream";
const [what, id] = process.argv.slice(2);
if (what === "put_get") {
  await putFile(id, "report.pdf");
  writeFileSync("copy.pdf", new Uint8Array(await get(id)));
} else if (what === "download") {
  await downloadFile(id, "copy.pdf");
} else if (what === "create") {
  console.log(await create(id, "made") ? "It is stored." : "There is one already.");
} else if (what === "swap") {
  await swap(id, (text) => `${Number(text) + 1}\\n`);
} else if (what === "stream") {
  const lines = function* () { for (let n = 1; n <= 100000; n++) yield Buffer.from(`${n}\\n`); };
  await putStream(id, Readable.from(lines()));
} else {
  for await (const each of what === "list" ? listed(id) : listedByPages(id, 2)) {
    console.log(JSON.stringify(each));
  }
}
"""


class Node(Client):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        program = "\n".join([*blocks("js"), *blocks("js node"), NODE])
        (folder / "client.mjs").write_text(program)

    def command(self, what: str, id: str) -> list[str]:
        program = self.folder / "client.mjs"
        return ["node", str(program), what, id]


GO = """
func main() {
	var err error
	what, id := os.Args[1], os.Args[2]
	print := func(each Object) {
		line, _ := json.Marshal(each)
		fmt.Println(string(line))
	}
	switch what {
	case "put_get":
		err = putFile(id, "report.pdf")
		if err == nil {
			var body []byte
			if body, _, err = get(id); err == nil {
				err = os.WriteFile("copy.pdf", body, 0o644)
			}
		}
	case "download":
		var file *os.File
		if file, err = os.Create("copy.pdf"); err == nil {
			err = download(id, file)
		}
	case "create":
		var done bool
		done, err = create(id, []byte("made"))
		if done {
			fmt.Println("It is stored.")
		} else if err == nil {
			fmt.Println("There is one already.")
		}
	case "swap":
		err = swap(id, func(body []byte) []byte {
			count, _ := strconv.Atoi(string(bytes.TrimSpace(body)))
			return []byte(fmt.Sprintln(count + 1))
		})
	case "stream":
		reader, writer := io.Pipe()
		go func() {
			for n := 1; n <= 100000; n++ {
				fmt.Fprintln(writer, n)
			}
			writer.Close()
		}()
		err = putStream(id, reader)
	case "list":
		err = listed(id, print)
	case "pages":
		err = listedByPages(id, 2, print)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


class Go(Client):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.program = folder / "client"
        if not self.program.exists():
            (folder / "main.go").write_text("\n".join([*blocks("go"), GO]))
            env = {**os.environ, "GOCACHE": "/tmp/gocache", "GOTOOLCHAIN": "local"}
            for command in (["vet", "main.go"], ["build", "-o", "client", "main.go"]):
                subprocess.run(["go", *command], cwd=folder, env=env, check=True)

    def command(self, what: str, id: str) -> list[str]:
        return [str(self.program), what, id]


BROWSER = """
const [gateway_, token_, what, id, report, done] = arguments;
globalThis.process = {env: {GATEWAY: gateway_, TOKEN: token_}};
const text = (bytes) => new TextDecoder().decode(bytes);
(async () => {
  %s
  const output = [];
  let copy = "";
  if (what === "put_get") {
    await put(id, new Blob([report]));
    copy = text(await get(id));
  } else if (what === "download") {
    const blocks = new Map();
    const size = await download(id, (block, at) => blocks.set(at, text(block)));
    for (let at = 0; at < size; at += blocks.get(at).length) copy += blocks.get(at);
  } else if (what === "create") {
    output.push(await create(id, "made") ? "It is stored." : "There is one already.");
  } else if (what === "swap") {
    await swap(id, (text) => `${Number(text) + 1}\\n`);
  } else {
    for await (const each of what === "list" ? listed(id) : listedByPages(id, 2)) {
      output.push(JSON.stringify(each));
    }
  }
  return [output.map((line) => `${line}\\n`).join(""), copy];
})().then(
  ([output, copy]) => done([false, output, "", copy]),
  (error) => done([true, "", `${error}`, ""]),
);
"""


class InBrowser(Client):
    """fetch in a page of the gateway, with one page at a time."""

    browser: Browser

    def do(self, what: str, id: str, gateway: str, token: str = "first", at: str = "a") -> Ran:  # noqa: ARG002 - it has no folder
        self.browser.set_script_timeout(120)
        program = BROWSER % "\n".join(blocks("js"))
        failed, output, errors, copy = self.browser.execute_async_script(
            program, gateway, token, what, id, REPORT.decode()
        )
        return Ran(failed, output, errors, copy.encode())


KINDS: dict[str, type[Client]] = {"curl": Curl, "python": Python, "browser": InBrowser}
KINDS |= {name: kind for name, kind in (("node", Node), ("go", Go)) if shutil.which(name)}
STREAMING = [name for name in KINDS if name != "browser"]


@pytest.fixture(scope="module")
def guarded(shared: Stack) -> Gateway:
    """A gateway with a token."""
    gateway = shared.add_gateway({"OBJGW_TOKENS": "first"})
    ids = [shared.id_of(node) for node in shared.nodes]
    eventually(lambda: {gateway.put(id, b"x", headers=TOKEN).status for id in ids} == {200})
    return gateway


@pytest.fixture
def flaky(guarded: Gateway) -> Iterator[Flaky]:
    """A proxy before it."""
    with Flaky(guarded) as proxy:
        yield proxy
        proxy.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, folder: Path, flaky: Flaky) -> Iterator[Client]:
    home = folder / request.param
    home.mkdir(exist_ok=True)
    for left in home.glob("*/copy.*"):
        left.unlink()
    made = KINDS[request.param](home)
    if not isinstance(made, InBrowser):
        yield made
        return
    made.browser = request.getfixturevalue("chromium")
    with still_network():
        made.browser.get(f"{flaky.url}/health/live")  # so that it asks its page's own origin
        yield made


def of(flaky: Flaky, method: str, path: str) -> list[dict[str, str]]:
    """The headers of the requests that have come."""
    return [each.headers for each in flaky.seen if each.line.startswith(f"{method} {path} ")]


def test_an_object_is_stored_and_read_after_503_once_retry_after_says(
    client: Client, flaky: Flaky
) -> None:
    id = random_id()
    flaky.faults = [Fault(), Fault()]
    ran = client.do("put_get", id, flaky.url)
    assert (ran.failed, ran.copy) == (False, REPORT), ran.errors
    assert flaky.gateway.get(id, headers=TOKEN).body == REPORT
    times = [each.at for each in flaky.seen if each.line.startswith("PUT")]
    assert len(times) == 3
    assert all(later - sooner >= BUSY_SECONDS for sooner, later in pairwise(times))


def test_a_download_that_is_cut_goes_on_with_the_rest(client: Client, flaky: Flaky) -> None:
    id = random_id()
    etag = flaky.gateway.put(id, REPORT, headers=TOKEN).headers["ETag"]
    # curl asks for the headers first.
    head = [Fault(cut=10**9)] if isinstance(client, Curl) else []
    flaky.faults = [*head, Fault(cut=100_000), Fault(), Fault(cut=50_000)]
    ran = client.do("download", id, flaky.url)
    assert (ran.failed, ran.copy) == (False, REPORT), ran.errors
    got = of(flaky, "GET", f"/object/{id}")
    assert len(got) == 4
    assert {each["if-range"] for each in got[1:]} == {etag}
    begins = [int(each["range"].removeprefix("bytes=").removesuffix("-")) for each in got[1:]]
    # A browser may drop what came before the error, and begins anew then.
    assert begins == sorted(begins)
    assert begins[0] > 50_000 or isinstance(client, InBrowser)


def test_a_download_whose_object_is_replaced_meanwhile_is_the_new_one(
    client: Client, flaky: Flaky
) -> None:
    id, gateway, new = random_id(), flaky.gateway, REPORT[::-1][:150_000]
    assert gateway.put(id, REPORT, headers=TOKEN).status == 200
    head = [Fault(cut=10**9)] if isinstance(client, Curl) else []
    replaced = Fault(cut=200_000, then=lambda: gateway.put(id, new, headers=TOKEN))
    flaky.faults = [*head, replaced]
    ran = client.do("download", id, flaky.url)
    assert (ran.failed, ran.copy) == (False, new), ran.errors


def test_a_read_that_is_cut_is_an_error(client: Client, flaky: Flaky) -> None:
    id = random_id()
    flaky.faults = [Fault(cut=10**9), *[Fault(cut=100_000)] * 10]
    assert client.do("put_get", id, flaky.url).failed


def test_of_two_who_create_one_is_told_that_there_is_one(client: Client, flaky: Flaky) -> None:
    id = random_id()
    assert client.do("create", id, flaky.url)[:2] == (False, STORED)
    body = flaky.gateway.get(id, headers=TOKEN).body
    assert client.do("create", id, flaky.url)[:2] == (False, THERE)
    assert flaky.gateway.get(id, headers=TOKEN).body == body


@pytest.mark.parametrize("what", ["create", "swap"])
def test_a_conditional_write_is_not_sent_again(client: Client, flaky: Flaky, what: str) -> None:
    id = random_id()
    if what == "swap":
        flaky.gateway.put(id, b"1\n", headers=TOKEN)
    flaky.faults = [*[Fault(cut=10**9)] * (what == "swap"), Fault()]
    ran = client.do(what, id, flaky.url)
    assert ran.failed
    assert "busy" in ran.errors
    assert len(of(flaky, "PUT", f"/object/{id}")) == 1


def test_no_swap_is_lost_where_several_clients_race(client: Client, flaky: Flaky) -> None:
    id = random_id()
    assert flaky.gateway.put(id, b"0\n", headers=TOKEN).status == 200

    def counts(number: int) -> list[Ran]:
        return [client.do("swap", id, flaky.url, at=f"racer{number}") for _ in range(3)]

    with ThreadPoolExecutor(1 if isinstance(client, InBrowser) else 3) as pool:
        ran = [each for done in pool.map(counts, range(3)) for each in done]
    assert not [each for each in ran if each.failed]
    assert flaky.gateway.get(id, headers=TOKEN).body == b"9\n"


def test_a_swap_reads_again_where_somebody_else_was_faster(client: Client, flaky: Flaky) -> None:
    id, gateway = random_id(), flaky.gateway
    assert gateway.put(id, b"1\n", headers=TOKEN).status == 200
    flaky.faults = [Fault(cut=10**9, then=lambda: gateway.put(id, b"41\n", headers=TOKEN))]
    ran = client.do("swap", id, flaky.url)
    assert not ran.failed, ran.errors
    assert gateway.get(id, headers=TOKEN).body == b"42\n"
    assert len(of(flaky, "PUT", f"/object/{id}")) == 2


@pytest.fixture(scope="module")
def prefix(guarded: Gateway) -> str:
    """Of 50 ids."""
    prefix = random_id()[:20]
    ids = [f"{prefix}{number}" for number in range(50)]
    assert {guarded.put(id, b"x", headers=TOKEN).status for id in ids} == {200}
    return prefix


def ids_in(ran: Ran) -> list[str]:
    """The ids of a list that a program has printed, as lines or pages of JSON."""
    lines = map(json.loads, ran.output.splitlines())
    return [each["id"] for line in lines for each in line.get("objects", [line])]


@pytest.mark.parametrize("what", ["list", "pages"])
def test_the_list_has_all_objects_also_after_503(
    client: Client, flaky: Flaky, prefix: str, what: str
) -> None:
    flaky.faults = [Fault()]
    ran = client.do(what, prefix, flaky.url)
    assert not ran.failed, ran.errors
    assert ids_in(ran) == sorted(f"{prefix}{number}" for number in range(50))
    in_javascript = isinstance(client, (InBrowser, Node))
    assert len(flaky.seen) == 1 + (25 if what == "pages" else 2 if in_javascript else 1)


@pytest.mark.parametrize("what", ["list", "pages"])
def test_a_list_that_breaks_off_is_never_taken_for_the_whole(
    client: Client, flaky: Flaky, prefix: str, what: str
) -> None:
    flaky.faults = [Fault(cut=2000 if what == "list" else 500)] * 10
    ran = client.do(what, prefix, flaky.url)
    if what == "list" and isinstance(client, Node):  # it doesn't notice, and asks for the rest
        assert sorted(ids_in(ran)) == sorted(f"{prefix}{number}" for number in range(50))
    else:
        assert ran.failed


@pytest.mark.parametrize("client", STREAMING, indirect=True)
def test_an_upload_without_a_length_is_stored_and_sent_once(client: Client, flaky: Flaky) -> None:
    id = random_id()
    ran = client.do("stream", id, flaky.url)
    assert not ran.failed, ran.errors
    assert flaky.gateway.get(id, headers=TOKEN).body == STREAMED
    (sent,) = of(flaky, "PUT", f"/object/{id}")
    assert sent["transfer-encoding"] == "chunked"
    flaky.faults = [Fault()]
    assert client.do("stream", id, flaky.url).failed


def test_a_wrong_token_is_told_as_such(client: Client, flaky: Flaky) -> None:
    for what in ("put_get", "download", "list"):
        ran = client.do(what, random_id(), flaky.url, token="another")
        assert ran.failed
        assert "401" in ran.errors
