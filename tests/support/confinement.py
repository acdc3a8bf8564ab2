"""Run programs under `judges/confine.py`, with and without the kernel's part, and programs that it must stop."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

from presafe.judges.code import Limits

CONFINE = resources.files("presafe.judges").joinpath("confine.py").read_text(encoding="utf-8")
WITHOUT_KERNEL = CONFINE.replace("= 444, 445, 446", "= 9444, 9445, 9446").replace('"x86_64":', '"none":')
WITHOUT_KERNEL = WITHOUT_KERNEL.replace('"aarch64":', '"nor":')
"""As on a kernel without Landlock and on an unknown machine: only Python's audit hook is left."""
WITHOUT_HOOK = CONFINE.replace("sys.addaudithook(", "_hook(")
"""Only the kernel's part."""
assert len({CONFINE, WITHOUT_KERNEL, WITHOUT_HOOK}) == 3
assert "444, 445, 446" not in WITHOUT_KERNEL.replace("9444, 9445, 9446", "")


def passes(program: str, folder: Path, confine: str = CONFINE, limits: Limits = Limits(cpu_s=1, wall_s=8.0)) -> bool:  # noqa: B008
    """Run a program, check that its folder is gone, and return whether its last line ran."""
    (folder / "confine.py").write_text(confine, encoding="utf-8")
    (folder / "program.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "-I", "-B", "confine.py", "program.py", json.dumps(limits._asdict())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)
    assert not done.stderr
    assert {path.name for path in folder.iterdir()} == {"confine.py", "program.py"}  # its own folder is gone
    return done.returncode == 0


MANY = "import subprocess\nfor _ in range(40):\n    subprocess.Popen(['sleep', '{seconds}'])\n"
FORKS = "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n        time.sleep(600)\n"
BAD = {
    "infinite loop": "while True:\n    pass\n",
    "huge allocation": "x = bytearray(10**12)\n",
    "growing allocation": "x = []\nwhile True:\n    x.append(' ' * 10**8)\n",
    "forks": FORKS,
    "programs": MANY.format(seconds=600),
    "deep recursion": "def f():\n    f()\nf()\n",
    "socket": "import socket\nsocket.socket()\n",
    "kills its watcher": "import os\nos.kill(os.getppid(), 9)\n",
    "file outside": "open({outside!r}, 'w').write('x')\n",
    "file in the sandbox, outside its own folder": "open('../program.py', 'w').write('x')\n",
    "removes": "import os\nos.remove({kept!r})\n",
    "renames": "import os\nos.rename({kept!r}, 'mine')\n",
    "sets times": "import os\nos.utime({kept!r}, (0, 0))\n",
    "sets an attribute": "import os\nos.setxattr({kept!r}, 'user.mine', b'x')\n",
    "leaves by the door": (
        "import os\nfor number in range(64):\n    try:\n        os.write(number, b'done')\n"
        "    except OSError:\n        pass\nos._exit(0)\n"
    ),
    "large file": "open('x', 'wb').write(b'x' * 2**21)\n",
}


def has_landlock() -> bool:
    """Return whether this kernel has Landlock."""
    return sys.platform == "linux" and bool(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 1)


def commands() -> str:
    """Return the command lines of all processes."""
    if not os.path.isdir("/proc"):
        return subprocess.run(["ps", "-axo", "command"], capture_output=True, text=True, check=True).stdout
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(lines)
