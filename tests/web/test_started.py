"""``didi demo`` as its reader starts it: from an empty folder, with one sample drawn in a browser, and ended by Ctrl-C.

It imports nothing of the package itself, so that it also tries an installed wheel.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import chromium
import pytest
from chromium import texts, wait_for

MISSING = chromium.missing("gradio")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


def heed_interrupts() -> None:
    """What a shell starts behind ``&`` ignores Ctrl-C, and so does what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_sample_is_drawn_soon_after_the_installation(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "didi_core", "demo", f"port={port}", "domains=[protein]"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed_interrupts}
    with subprocess.Popen(words, cwd=tmp_path, text=True, **pipes) as served:
        try:
            assert served.stdout is not None
            line = served.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, line
            with chromium.chromium() as driver:
                driver.get(address.group())
                wait_for(lambda: texts(driver, "#protein-draw"))
                driver.find_element("css selector", "#protein-draw").click()
                wait_for(lambda: texts(driver, "#protein-file a"))
                (text,) = texts(driver, "#protein-first .didi-text")
                assert re.fullmatch("[ACDEFGHIKLMNPQRSTVWY]{30,300}", text)
            served.send_signal(signal.SIGINT)
            assert served.wait(20) == 0
        finally:
            served.kill()  # or the end of the block would wait for it
    assert not [*tmp_path.iterdir()], "nothing is left behind"
