"""Open the studio in a browser: ``python app.py`` (``--help`` lists the arguments)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from studio.settings import Settings, environment, prepare_environment


def main(argv: Sequence[str] | None = None) -> None:
    settings = Settings.read(sys.argv[1:] if argv is None else argv, environment())
    prepare_environment(settings)  # before gradio is imported

    from studio.ui.blocks import build, launch
    from studio.workbench import Workbench

    workbench = Workbench(settings)
    page = build(workbench)
    workbench.warm_up()  # beside the start of the server, and after gradio's imports: two at once trip over each other
    try:
        launch(page, workbench)
    finally:
        workbench.close()


if __name__ == "__main__":
    main()
