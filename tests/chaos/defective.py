"""A real worker with a defect planted: ``python -m tests.chaos.defective NAME worker``.

Everything after the name is what ``streamapp`` itself takes.
"""

from __future__ import annotations

import sys

from tests.chaos.defects import DEFECTS


def main() -> None:
    _, name, *arguments = sys.argv
    DEFECTS[name]()
    from streamapp.cli import main as streamapp

    streamapp(arguments)


if __name__ == "__main__":
    main()
