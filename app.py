"""Open the studio in a browser: ``python app.py`` (``--help`` lists the arguments)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from studio.settings import Settings, environment, prepare_environment


def main(argv: Sequence[str] | None = None) -> None:
    settings = Settings.read(sys.argv[1:] if argv is None else argv, environment())
    prepare_environment(settings)  # before gradio is imported

    from studio.ui.blocks import build, launch
    from studio.workbench import Workbench

    workbench = Workbench(settings)
    page = build(workbench)
    try:
        with suppress(KeyboardInterrupt):  # Ctrl+C is how the page is closed, also while it is still opening
            launch(page, workbench, prevent_thread_lock=True)
            workbench.warm_up()  # only now: until the page is served it would be in the way
            page.block_thread()
    except OSError as error:
        sys.exit(f"error: the page cannot be served at {settings.host}, port {settings.port} ({error})")
    finally:
        ended = workbench.close()
    if not ended:
        os._exit(0)  # the interpreter aborts when it takes itself apart under a thread that is inside torch


if __name__ == "__main__":
    main()
