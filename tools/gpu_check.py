"""Which accelerators PyTorch sees and which model would run: the same as ``indextts check``."""

from __future__ import annotations

import sys

from indextts.cli import main

if __name__ == "__main__":
    sys.exit(main(["check", *sys.argv[1:]]))
