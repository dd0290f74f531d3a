"""The page of a plan: what it says of whom, that nothing in a plan can be more than text, and that it stays small."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cluster.changes import Change, Host, Plan, Step, step
from cluster.plan_page import TEMPLATES, beside, natural, page, split
from cluster.plan_picture import BOX_HEIGHT, BOX_WIDTH, BOXES, SQUARE, WIDTH, picture

HOSTILE = """</pre></script><script>alert(1)</script><img src="//x.test/i" onerror='alert(2)'>{{ 7*7 }}&amp;"""
VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """Elements of a page with their attributes, in order, and the text within each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[list[str]] = []
        self.open: list[int] = []
        self.feed(text)
        assert not self.open, "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.append([])
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for each in self.open:
            self.texts[each].append(data)

    def said(self, tag: str, **attributes: str) -> list[str]:
        """Texts of the elements of this name and attributes; a `class_` may be one of several."""
        return [
            " ".join("".join(text).split())
            for (name, own), text in zip(self.elements, self.texts, strict=True)
            if name == tag and all(value in own.get(key.rstrip("_"), "").split() for key, value in attributes.items())
        ]

    def values(self, *names: str) -> list[str]:
        """Every value of these attributes."""
        return [own[name] for _, own in self.elements for name in names if name in own]


def hosts(workers: int) -> dict[str, Host]:
    known = {"lb1": Host(groups=("load_balancer",), address="10.0.0.11")}
    known |= {f"cp{n}": Host(groups=("control_plane",), address=f"10.0.0.{20 + n}") for n in (1, 2, 3)}
    return known | {
        f"w{n}": Host(groups=("worker",), address=f"10.1.{n // 250}.{n % 250 + 1}") for n in range(1, workers + 1)
    }


def plan(*steps: Step, workers: int = 3, **fields: Any) -> Plan:
    about: dict[str, Any] = {
        "kind": "plan", "made": "2026-11-30T01:02:03+00:00", "deploys": ("cluster",), "cluster_name": "shop",
        "kubernetes_version": "v1.36.2", "bundle": "ab" * 32, "endpoint": "10.0.0.100:6443", "hosts": hosts(workers),
        "operations": 98,
    }  # fmt: skip
    return Plan(steps=steps, **about | fields)


def change(words: str, *diff: str, **more: str) -> tuple[Change, ...]:
    return (Change(words=words, diff=diff, **more),)


def example(workers: int = 3, **fields: Any) -> Plan:
    nodes = [name for name in hosts(workers) if name != "lb1"]
    names = [name for name in nodes if name.startswith("w")]
    return plan(
        step("Cluster | Node | Write kernel settings", dict.fromkeys(nodes, change("create /etc/x", "-a", "+b", "+c"))),
        step("Cluster | Node | Name the host", dict.fromkeys(["w1"], ())),
        step("Cluster | Balance | Run HAProxy", {"lb1": change("restart haproxy", effect="connections are cut")}),
        step("Cluster | Workers | Join", {n: change(f"join {n} at once", later="the hash comes later") for n in names}),
        workers=workers, **fields,
    )  # fmt: skip


def test_the_head_says_what_is_planned_for_what() -> None:
    shown = Page(page(example()))
    head = dict(zip(shown.said("dt"), shown.said("dd"), strict=True))
    assert head.items() >= {
        "Cluster": "shop", "Kubernetes": "v1.36.2", "Endpoint": "10.0.0.100:6443", "Deploys": "cluster",
        "Made": "2026-11-30 01:02:03 UTC", "Hosts": "7", "Operations": "98 looked at", "Bundle": f"sha256:{'ab' * 32}",
    }.items()  # fmt: skip
    assert shown.said("h1") == ["Plan for shop"]
    assert shown.said("p", class_="sum") == [
        "11 changes in 4 steps, on 7 hosts of 7. ▲ 1 affects what runs ? 3 cannot be known whole before the run"
    ]


def test_steps_are_shown_by_layer_with_alike_hosts_together() -> None:
    shown = Page(page(example()))
    assert shown.said("h3")[:3] == ["Node", "Balance", "Workers"]
    assert shown.said("h4") == ["Write kernel settings", "Name the host", "Run HAProxy", "Join"]
    assert shown.said("div", class_="item") == [
        "cp1, cp2, cp3, w1, w2, w3 create /etc/x lines: +2 -1 -a +b +c",
        "w1 no more is said of it",
        "lb1 restart haproxy ▲ affects what runs: connections are cut",
        "w1, w2, w3 join <host> at once ? not known yet: the hash comes later",
    ]
    assert (shown.said("ins"), shown.said("del")) == (["lines: +2", "+b", "+c"], ["-1", "-a"])


def test_hosts_that_the_same_operations_change_are_one_and_their_operations_lead_to_the_steps() -> None:
    shown = Page(page(example(hosts=hosts(3) | {"w4": Host(groups=("worker",), address="10.9.0.1")})))
    assert shown.said("article", class_="step")[4:] == [
        "lb1 Balance Run HAProxy: restart haproxy ▲ affects what runs: connections are cut",
        "cp1, cp2, cp3 Node Write kernel settings: create /etc/x",
        "w1 Node Write kernel settings: create /etc/x Node Name the host Workers Join: join <host> at once "
        "? not known yet: the hash comes later",
        "w2, w3 Node Write kernel settings: create /etc/x Workers Join: join <host> at once "
        "? not known yet: the hash comes later",
        "w4 Nothing to change.",
    ]


def test_what_one_operation_does_in_several_ways_is_shown_once_by_host() -> None:
    swap = {f"w{n}": change(f"turn off swap: UUID={n}", effect="a" if n == 2 else "") for n in (1, 2, 3)}
    shown = Page(page(plan(step("Cluster | Node | Turn swap off", swap))))
    assert "w1, w2, w3 Node Turn swap off: in 3 ways ▲affects what runs" in shown.said("article")


def test_the_picture_marks_each_host_with_the_number_of_its_changes() -> None:
    shown = Page(page(example()))
    marks = [(each["data-host"], each["class"]) for name, each in shown.elements if name == "a" and "data-host" in each]
    assert marks == [("lb1", "effect"), *((name, "some") for name in ("cp1", "cp2", "cp3", "w1", "w2", "w3"))]
    assert shown.said("title")[1:] == [
        "lb1: 1 change, affects what runs",
        *(f"cp{n}: 1 change" for n in (1, 2, 3)),
        "w1: 3 changes",
        "w2: 2 changes",
        "w3: 2 changes",
    ]


@pytest.mark.parametrize("workers", [1, BOXES, BOXES + 1, 495])
def test_hosts_of_the_picture_are_within_it_and_apart(workers: int) -> None:
    known = hosts(workers)
    drawn = picture(
        "[2001:db8:1234:5678:9abc:def0:1234:5678]:6443",
        {n: h.groups for n, h in known.items()},
        dict.fromkeys(known, 1),
    )
    assert drawn.endpoint_width < WIDTH
    bottom = 0
    for frame in drawn.frames:
        assert bottom < frame.y
        bottom = frame.y + frame.height
        wide, high = (BOX_WIDTH, BOX_HEIGHT) if frame.boxes else (SQUARE, SQUARE)
        for each in frame.places:
            assert each.x > 0 and each.x + wide < WIDTH
            assert each.y > frame.y and each.y + high < bottom
        corners = {(each.x, each.y) for each in frame.places}
        assert len(corners) == len(frame.places)
        assert all((x + by, y) not in corners for x, y in corners for by in range(1, wide))
    assert bottom < drawn.height
    assert sorted(each.name for frame in drawn.frames for each in frame.places) == sorted(known)


def test_names_in_the_picture_are_short_and_tell_hosts_apart() -> None:
    names = ["a1.shop.test", "a2.shop.test", "b.east.test", "b.west.test", "a-very-long-name-17"]
    (frame,) = picture("x", dict.fromkeys(names, ("worker",)), dict.fromkeys(names, 0)).frames
    assert [each.short for each in frame.places] == ["a1", "a2", "b.east.test", "b.west.test", "a-very…e-17"]


def test_a_plan_without_changes_says_so() -> None:
    for kind, words in (("plan", "No changes: the hosts are as described."), ("result", "Nothing was changed.")):
        shown = Page(page(plan(kind=kind)))
        assert shown.said("p", class_="sum") == [words]
        assert [name for name, _ in shown.elements if name in ("form", "script", "article")] == []
        assert shown.values("href") == []


def test_what_was_done_is_said_as_done() -> None:
    shown = Page(page(example(kind="result")))
    assert (shown.said("title")[0], shown.said("h1")) == ("shop: what was done", ["What was done in shop"])
    assert shown.said("strong") == ["11 changes made"]


def test_nothing_in_a_plan_is_more_than_text() -> None:
    known = {HOSTILE: Host(groups=("worker",), address="10.0.0.1")}
    made = plan(
        step(f"{HOSTILE} | {HOSTILE} | {HOSTILE}",
             {HOSTILE: change(HOSTILE, f"+{HOSTILE}", HOSTILE, effect=HOSTILE, later=HOSTILE)}),
        hosts=known, deploys=(HOSTILE,), cluster_name=HOSTILE, kubernetes_version=HOSTILE, bundle=HOSTILE,
        endpoint=HOSTILE, made=HOSTILE,
    )  # fmt: skip
    shown, harmless = (
        Page(page(made)),
        Page(page(plan(step("a | b | c", {"w1": change("d", "+e", "f", effect="g", later="h")})))),
    )
    counted = Counter(name for name, _ in shown.elements)
    assert counted["script"] == 1 and counted["img"] == 0
    assert set(counted) == {name for name, _ in harmless.elements}
    assert f"+{HOSTILE}" in shown.said("ins")
    assert HOSTILE in shown.said("h3") and HOSTILE in shown.said("h4") and HOSTILE in shown.said("dd")


def test_the_page_allows_its_own_style_and_script_and_nothing_else() -> None:
    shown = Page(page(example()))
    policy = next(own["content"] for name, own in shown.elements if own.get("http-equiv") == "Content-Security-Policy")
    rules = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    for name, kind in (("style", "style-src"), ("script", "script-src")):
        (text,) = ["".join(text) for (tag, _), text in zip(shown.elements, shown.texts, strict=True) if tag == name]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert rules == {}
    assert [name for _, own in shown.elements for name in own if name == "style" or name.startswith("on")] == []


def test_the_page_asks_for_nothing_and_its_links_lead_to_what_is_on_it() -> None:
    shown = Page(page(example(workers=20)))
    assert shown.values("src", "srcset", "action", "data", "poster", "xlink:href") == []
    ids = shown.values("id")
    assert len(ids) == len(set(ids))
    links = shown.values("href")
    assert {each[:1] for each in links} == {"#"}
    named = {each for value in shown.values("aria-labelledby", "data-list") for each in value.split()}
    assert {each[1:] for each in links} | named <= set(ids)
    assert not re.search(r"url\(|@import|@font-face", (TEMPLATES / "page.css").read_text())
    assert not re.search(r"fetch|XMLHttp|import|innerHTML|eval|https?:", (TEMPLATES / "page.js").read_text())


def test_what_the_script_looks_for_is_on_the_page() -> None:
    script = (TEMPLATES / "page.js").read_text()
    shown = Page(page(example()))
    ids = set(re.findall(r'"#([a-z]+)"', script))
    assert {"find", "open", "fold", "keys"} <= ids <= set(shown.values("id"))
    assert {"effect", "later"} <= set(shown.values("id"))
    assert {"by-layer", "by-host"} <= set(shown.values("id"))
    assert {own["value"] for _, own in shown.elements if own.get("name") == "view"} == {"layer", "host"}
    assert len(script.splitlines()) <= 100


def test_a_plan_for_500_hosts_is_small_and_quickly_made() -> None:
    made = example(workers=496)
    page(plan())  # templates are read once
    began = time.process_time()
    text = page(made)
    assert time.process_time() - began < 5
    assert len(text) < 250_000
    shown = Page(text)
    assert [each for each in shown.said("p", class_="hosts") if "500" in each or "499" in each] == [
        "cp1 ... w496 (499 hosts)"
    ]
    (names,) = [each for each in shown.said("span") if each.startswith("cp1, cp2, cp3, w1, w2")]
    assert names.endswith(", w495, w496") and names.count(",") == 498
    assert len({each for each in shown.values("data-host")}) == 500
    assert "496 workers: 2 to 3 changes each" in shown.said("text")


def test_500_hosts_that_all_differ_are_told_of_once() -> None:
    known = hosts(496)
    steps = [
        step(f"Cluster | Node | Step {n}", {name: change(f"write {name}-{n}", "+x") for name in known})
        for n in range(10)
    ]
    text = page(plan(*steps, workers=496))
    assert text.count('class="item"') == 500 * 10 + 10
    assert len(text) < 2_500_000


@pytest.mark.parametrize(
    ("operation", "layer", "title"),
    [
        ("Cluster | Node | Load kernel modules", "Node", "Load kernel modules"),
        ("Node | Load / unload", "Node", "Load / unload"),
        ("Cluster | Node | Set a / Cluster | Node | Set b", "Node", "Set a / Set b"),
        ("Look", "Other operations", "Look"),
    ],
)
def test_an_operation_is_of_the_layer_that_its_name_says(operation: str, layer: str, title: str) -> None:
    assert split(operation) == (layer, title)


def test_hosts_are_in_the_order_that_people_count_in() -> None:
    counted = ["a", "w1", "w1.x", "w2", "w2b", "w10", "2", "10"]
    assert sorted(sorted(counted), key=natural) == counted


@pytest.mark.parametrize(
    ("path", "place"), [("a/plan.json", "a/plan.html"), ("plan", "plan.html"), ("v1.2", "v1.2.html")]
)
def test_the_page_is_beside_the_plan_and_never_in_its_place(path: str, place: str) -> None:
    assert beside(Path(path)) == Path(place)
    assert beside(Path("plan.html")) != Path("plan.html")
