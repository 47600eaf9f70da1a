"""`python tests/support/wheels.py`: the wheel of this Python, repaired by auditwheel, and tested.

What is in dist/ was tested where it was built: installed alone, beside a torch that is there
already, the kernels ran and the command answered. cibuildwheel's wheels of other Pythons and
machines (`make release`) lie in dist/untested until somebody runs them there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CHECK = """
import bitlens, torch
from bitlens.precision import bitlens_contract, check
import bitlens.model
x = torch.randn(3, 64)
inputs = {"x": x, "weight": torch.ones(64), "eps": 1e-6}
y = torch.ops.bitlens.rms_norm(x, inputs["weight"], 1e-6)
assert check(y, inputs, bitlens_contract("rms_norm", "fp32")).ok
print(bitlens.__version__, bitlens.isa(), bitlens.__file__)
"""


def build(folder: Path) -> Path:
    """Returns this Python's wheel as setuptools makes it."""
    words = [
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        ".",
    ]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


def repair(built: Path, to: Path) -> Path:
    """Returns the wheel with the oldest manylinux tag that its symbols allow, in `to`."""
    with tempfile.TemporaryDirectory() as scratch:
        words = ["-m", "auditwheel", "repair", "-w", scratch, str(built)]
        subprocess.run([sys.executable, *words], check=True)
        (repaired,) = Path(scratch).glob("*.whl")
        assert "manylinux" in repaired.name, repaired.name
        to.mkdir(exist_ok=True)
        return Path(shutil.move(repaired, to / repaired.name))


def test(wheel: Path) -> None:
    """Raises CalledProcessError for a wheel that does not run by itself.

    Its environment borrows this one's packages, bitlens not among them: an editable install is a
    path, which a .pth file of the borrowed folder cannot add.
    """
    with tempfile.TemporaryDirectory() as scratch:
        environment = Path(scratch) / "env"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        mine, theirs = (
            subprocess.run(
                [p, "-c", where], capture_output=True, text=True, check=True
            ).stdout.strip()
            for p in (sys.executable, str(python))
        )
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
        # After the install, to which a borrowed bitlens of this version would be this one.
        (Path(theirs) / "borrowed.pth").write_text(mine + "\n")
        alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        ran = subprocess.run(
            [python, "-c", CHECK],
            cwd=scratch,
            env=alone,
            capture_output=True,
            text=True,
            check=True,
        )
        assert theirs in ran.stdout, f"another bitlens ran: {ran.stdout}"
        subprocess.run([environment / "bin" / "bitlens", "--version"], cwd=scratch, check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wheel = repair(build(Path(scratch)), ROOT / "dist")
    test(wheel)
    print(
        f"{wheel.relative_to(ROOT)}: tested on Python {sys.version_info[0]}.{sys.version_info[1]}"
    )


if __name__ == "__main__":
    main()
