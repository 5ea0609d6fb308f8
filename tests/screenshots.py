"""Pictures of the live page for the documentation: real runs, one of them killed, in light and dark, desktop and phone.

`make screenshots` writes them to `docs/images`. It takes about two minutes.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from browser import SIZES, chromium
from servers import binary, eventually

from liquid_telemetry.spool import exporter_address

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
WATCHED = 40.0
RUNS = {
    "BasicMotions": ("basic_motions_cfc", 60),
    "LTC": ("japanese_vowels_ltc", 400),
    "CfC": ("japanese_vowels_cfc", 600),
}


def train(folder: Path, name: str) -> subprocess.Popen:
    """Start a run of a ready configuration."""
    config, epochs = RUNS[name]
    command = [
        sys.executable,
        "-m",
        "liquid_train",
        "fit",
        "--config",
        str(ROOT / "configs" / f"{config}.yaml"),
    ]
    options = [f"--trainer.max_epochs={epochs}", f"--telemetry.model_name={name}", "--telemetry.port=0"]
    return subprocess.Popen(
        [*command, *options, "--trainer.enable_progress_bar=false"], cwd=folder, stdout=subprocess.DEVNULL
    )


def main() -> None:
    """Take every picture."""
    program = binary("chromium")
    with tempfile.TemporaryDirectory() as home, ExitStack() as running:
        folder, spool = Path(home), Path(home) / "spool"
        spool.mkdir(mode=0o700)
        os.environ.update(LIQUID_TELEMETRY_SPOOL=str(spool), OMP_NUM_THREADS="1", TZ="UTC")

        def start(name: str) -> subprocess.Popen:
            process = train(folder, name)
            running.callback(process.kill)
            return process

        start("BasicMotions").wait()
        killed = start("LTC")
        time.sleep(WATCHED / 2)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        start("CfC")
        time.sleep(WATCHED)
        address = eventually(lambda: exporter_address(spool))
        running.callback(os.kill, address.pid, signal.SIGTERM)
        visit = running.enter_context(chromium(program))
        for scheme in ("light", "dark"):
            for size in SIZES:
                page = visit(address.url, size, scheme)
                page.until("document.querySelector('#epochs .u-over') !== null")
                page.page.screenshot(path=IMAGES / f"page-{size}-{scheme}.png")
                page.page.close()
        page = visit(address.url)
        page.until("document.querySelectorAll('#runs li').length === 3")
        page.page.locator("#runs li", has_text="killed").locator("button").click()
        page.until("document.querySelector('#state').textContent.includes('signal 9')")
        page.page.locator("#runs input:not(:checked):not(:disabled)").first.check()
        page.until("charts.get('loss')?.series.length > 3")
        page.page.screenshot(path=IMAGES / "page-killed.png")


if __name__ == "__main__":
    main()
