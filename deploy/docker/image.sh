#!/usr/bin/env bash
# The steps that make the image, each of which also runs without a container engine:
# the Dockerfile calls this script, and tests/deploy/test_image.py runs it in an empty folder.
#
#   image.sh wheel SOURCE FOLDER            build the wheel of the sources into FOLDER
#   image.sh install PREFIX VARIANT FOLDER  make the environment PREFIX: FOLDER's wheel, and
#                                           exactly the versions of constraints-VARIANT.txt
#   image.sh check PREFIX                   say what was installed, and fail if it cannot work
#   image.sh lock VARIANT                   write constraints-VARIANT.txt anew (`make lock`)
#
# VARIANT is cpu, cuda12 or cuda13: the CUDA libraries come from PyPI with CuPy, so that all
# images have the same base. PYTHON names the interpreter (default: python3).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
uv_version=0.13.9

fail() {
  printf 'image.sh: %s\n' "$*" >&2
  exit 2
}

# Sets `extras`: what the image has beyond a plain install.
choose_extras() {
  extras=numba,io,postgres,remote
  case $1 in
    cpu) ;;
    cuda12 | cuda13) extras+=,$1 ;;
    *) fail "the variant must be cpu, cuda12 or cuda13, not '$1'" ;;
  esac
}

# Sets `uv`: the installer, in a folder that goes away with this script.
have_uv() {
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  "$python" -m venv "$scratch/tools"
  "$scratch/tools/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-cache-dir "uv==$uv_version" || {
    printf 'image.sh: no package index answers\n' >&2
    exit 3
  }
  uv=$scratch/tools/bin/uv
}

wheel() {
  have_uv
  "$uv" build --quiet --wheel --python "$python" --out-dir "$2" "$1"
}

install() {
  local prefix=$1 variant=$2 wheels=("$3"/agentic_ray-*.whl)
  choose_extras "$variant"
  [[ ${#wheels[@]} -eq 1 && -f ${wheels[0]} ]] || fail "there must be one wheel in $3"
  have_uv
  "$uv" venv --quiet --python "$python" "$prefix"
  "$uv" pip install --quiet --python "$prefix/bin/python" \
    --constraints "$here/constraints-$variant.txt" \
    "agentic-ray[$extras] @ file://$(realpath "${wheels[0]}")"
  if [[ $variant != cpu ]]; then
    # CuPy names the packages with its CUDA libraries in an extra of its own.
    "$uv" pip install --quiet --python "$prefix/bin/python" \
      --constraints "$here/constraints-$variant.txt" "cupy-${variant}x[ctk]"
  fi
}

check() {
  local prefix=$1
  "$prefix/bin/python" - <<'PYTHON'
import importlib.metadata as metadata
import sys

import agentic_ray

assert metadata.version("agentic-ray") == agentic_ray.__version__
shown = {"agentic-ray", "ray", "numpy", "numba", "cupy-cuda12x", "cupy-cuda13x"}
found = {d.name: d.version for d in metadata.distributions() if d.name in shown}
print("python", sys.version.split()[0], *(f"{name} {found[name]}" for name in sorted(found)))
PYTHON
  "$prefix/bin/agentic-ray" --version
  "$prefix/bin/ray" --version
}

lock() {
  local variant=$1 root=$here/../..
  choose_extras "$variant"
  have_uv
  local wanted=$scratch/wanted.txt
  printf 'agentic-ray[%s] @ file://%s\n' "$extras" "$(realpath "$root")" >"$wanted"
  [[ $variant == cpu ]] || printf 'cupy-%sx[ctk]\n' "$variant" >>"$wanted"
  {
    printf '# The versions in the image of variant %s. Written by `make lock`.\n' "$variant"
    "$uv" pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 \
      "$wanted" | grep -v '^agentic-ray'
  } >"$scratch/locked.txt"
  cp "$scratch/locked.txt" "$here/constraints-$variant.txt"
}

(($#)) || fail 'name a step: wheel, install, check or lock'
step=$1
shift
case $step in
  wheel | install | check | lock) "$step" "$@" ;;
  *) fail "there is no step '$step'" ;;
esac
