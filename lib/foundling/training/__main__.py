"""``accelerate launch -m foundling.training FILE --out RUN``: what `foundling train` does, on many devices."""

import sys

from foundling.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
