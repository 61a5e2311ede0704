"""Opens a page in headless Chromium, where there is one, and tells what became of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_COMPLAINT = re.compile(r"CONSOLE|Refused to|Uncaught")


def opened(page: Path) -> str:
    """The page's elements as the browser has read them. Skips where no browser is; fails where it complains."""
    browser = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser here: none of {', '.join(_NAMES)} is on the PATH")
    done = subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--enable-logging=stderr", f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, timeout=60, env={**os.environ, "HOME": str(page.parent)}, check=True,
    )  # fmt: skip
    complaints = [line for line in done.stderr.decode().splitlines() if _COMPLAINT.search(line)]
    assert complaints == []
    return done.stdout.decode()
