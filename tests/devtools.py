"""A headless Chromium, driven by its DevTools protocol over two pipes: JSON messages that end in NUL.

Browser() starts one with a profile of its own in a temporary folder, Page(browser, url) opens a tab and offers what a
user does: keys, clicks, text, windows of a size. What the page throws or logs as an error is in page.errors."""
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "ArrowUp": (38, ""), "ArrowDown": (40, ""),
        " ": (32, " "), "Backspace": (8, ""), "Delete": (46, ""), "Home": (36, ""), "End": (35, "")}
FROM_3_TO_4 = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])"""
ALT, CTRL, META, SHIFT = 1, 2, 4, 8


def chromium():
    """The path of a Chromium, or None. A snap of one sees no temporary folders of ours."""
    for name in ("chromium", "google-chrome"):
        path = shutil.which(name)
        if path and os.path.basename(os.path.realpath(path)) != "snap":
            return path
    return None


class Gone(Exception):
    pass


class Browser:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="tessera-chromium-")
        to, self.out = os.pipe()
        self.into, back = os.pipe()
        # away from 3 and 4, which become copies of them
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to, back)]
        os.close(to)
        os.close(back)
        to, back = high
        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.folder}/profile",
                   "--no-first-run", "--disable-gpu", "--disable-extensions", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--mute-audio",
                   "--no-proxy-server", "--password-store=basic", "--hide-scrollbars", "--lang=en",
                   "--disable-features=Translate,MediaRouter,OptimizationHints"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # Chromium's own refuses root, which containers' tests run as
        # The browser reads commands from 3 and writes to 4.
        self.process = subprocess.Popen(
            [sys.executable, "-c", FROM_3_TO_4, str(to), str(back), chromium(), *options],
            pass_fds=(to, back), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self.folder}, start_new_session=True)
        os.close(to)
        os.close(back)
        self.n = 0
        self.buffer = b""
        self.pages = {}

    def close(self):
        try:
            self.call("Browser.close", timeout=10)
            self.process.wait(10)
        except (Gone, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.into)
        for _ in range(20):  # children of it may still write
            shutil.rmtree(self.folder, ignore_errors=True)
            if not os.path.exists(self.folder):
                break
            time.sleep(0.1)

    def read(self, until):
        """The next message, an event or an answer."""
        while b"\0" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.into], [], [], left)[0]:
                raise Gone("the browser doesn't answer")
            data = os.read(self.into, 1 << 20)
            if not data:
                raise Gone("the browser has ended")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, timeout=60, **params):
        self.n += 1
        message = {"id": self.n, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data):]
        until = time.monotonic() + timeout
        while True:
            m = self.read(until)
            if m.get("id") == self.n:
                if "error" in m:
                    raise Gone(f"{method}: {m['error'].get('message')}")
                return m["result"]
            if "method" in m and m.get("sessionId") in self.pages:
                self.pages[m["sessionId"]].event(m["method"], m["params"])


class Page:
    def __init__(self, browser, url=None, width=1280, height=800, context=None):
        self.browser = browser
        self.errors = []
        self.expected = ()  # parts of errors that a test wants
        more = {"browserContextId": context} if context else {}
        self.target = browser.call("Target.createTarget", url="about:blank", **more)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height)
        if url:
            self.go(url)

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)
        del self.browser.pages[self.session]

    def call(self, method, **params):
        return self.browser.call(method, session=self.session, **params)

    def event(self, method, p):
        if method == "Runtime.exceptionThrown":
            d = p["exceptionDetails"]
            self.error(d.get("exception", {}).get("description") or d["text"])
        elif method == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
            self.error(" ".join(str(a.get("value", a.get("description"))) for a in p["args"]))
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.error(f'{p["entry"]["text"]} {p["entry"].get("url", "")}')
        elif method == "Page.javascriptDialogOpening":
            self.error(f"a dialog was opened: {p['message']}")

    def error(self, text):
        if not any(e in text for e in self.expected):
            self.errors.append(text)

    def size(self, width, height, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def media(self, **features):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": k.replace("_", "-"), "value": v} for k, v in features.items()])

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def reload(self):
        self.js("window.before = 1")
        self.call("Page.reload")
        self.until("!window.before && document.readyState === 'complete'")

    def js(self, code, timeout=60):
        """The value of an expression; promises are waited for."""
        r = self.browser.call("Runtime.evaluate", session=self.session, timeout=timeout, expression=code,
                              awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in r:
            d = r["exceptionDetails"]
            raise AssertionError(f"{code[:200]}: {d.get('exception', {}).get('description') or d['text']}")
        return r["result"].get("value")

    def until(self, code, seconds=20):
        """Whether the expression becomes true in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.js(f"!!({code})"):
                    return True
            except (AssertionError, Gone):  # the document is being replaced
                pass
            time.sleep(0.03)
        return False

    def key(self, key, modifiers=0):
        """A key pressed and let go. One character is its own name."""
        code, text = KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, key))
        named = "Key" + key.upper() if len(key) == 1 and key.isalpha() else "Space" if key == " " else key
        p = {"key": key, "code": named, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        shown = {"text": text} if text and not modifiers & (ALT | CTRL | META) else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if shown else "rawKeyDown", **p, **shown)
        self.call("Input.dispatchKeyEvent", type="keyUp", **p)

    def text(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """With the mouse, in the middle of what the selector finds, or will find soon."""
        self.until(f"document.querySelector({json.dumps(selector)})", 10)
        at = self.js(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
                     "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
                     "return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        if not at:
            raise AssertionError(f"nothing is {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))
