"""Try damaged and hostile inputs, kills and misbehaving servers on presafe, and print what was tried, held and failed.

    python -m faults --short --out FOLDER              about 75 s, as `make test` does
    python -m faults --minutes 30 --out FOLDER         as `make faults` does
    python -m faults --self-test --out FOLDER          faults are planted in the product; each must be caught

The corpus runs first. Failing inputs are written to FOLDER/corpus in its form; move those that stay into
`tests/faults/corpus`, with a reason in `xfail` where they are known.
"""

from __future__ import annotations

import sys

from faults.harness import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
