"""Whether this machine and its model files are fit to speak: the same as ``indextts check``, with the same flags."""

from __future__ import annotations

import sys

from indextts.cli import main

if __name__ == "__main__":
    sys.exit(main(["check", *sys.argv[1:]]))
