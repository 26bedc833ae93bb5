"""Whoever is the first to import mlx in a process has loaded the fast BLAS before: what mlx finds then, it keeps."""

import ctypes
import os
import subprocess
import sys

import pytest

from lib.files import ROOT
from tests.llama import small

WATCHED = """
import ctypes, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core":
            ctypes.CDLL("libopenblas.so.0", mode=os.RTLD_NOLOAD)  # raises OSError where it is not loaded yet

sys.meta_path.insert(0, Watch())
{first}
assert "mlx.core" in sys.modules
"""


def installed():
    try:
        ctypes.CDLL("libopenblas.so.0")
    except OSError:
        return False
    return sys.platform == "linux"


@pytest.mark.skipif(not installed(), reason="there is no OpenBLAS to load")
@pytest.mark.parametrize(
    "first",
    [
        "from lib.models import mlx; mlx.check(sys.argv[1])",
        "from lib.models import mlx; mlx.MLXModel(sys.argv[1])",
        "from lib.models import load; load.capabilities(sys.argv[1]); load.load(sys.argv[1])",
        "from lib.models.embed import embedder; embedder()",
        "from lib.models import gguf; from pathlib import Path\n"
        "try: gguf.convert(Path(sys.argv[2]), None, Path('.'))\nexcept Exception: pass",
        "from lib.train import adapter\ntry: adapter.merge([], [], '', {})\nexcept ValueError: pass",
        "from lib.desk import doctor; doctor.engine()",
    ],
)
def test_a_fast_blas_is_loaded_before_mlx_is(first, tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"")
    command = [sys.executable, "-c", WATCHED.format(first=first), small(), str(tmp_path / "no.gguf")]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-600:]
