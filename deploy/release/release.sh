#!/usr/bin/env bash
# Builds wheel and source distribution into dist/, and checks them.
#
#   deploy/release/release.sh dist       both, and the texts that an index shows
#   deploy/release/release.sh sbom       dist/sbom.cdx.json: what a plain installation brings (CycloneDX)
#   deploy/release/release.sh matrix     the wheel in a fresh environment of each Python, with the demo
#   deploy/release/release.sh lowest     the same with the lowest versions that pyproject.toml allows
#
# PYTHON is the Python that builds; PYTHONS are the versions of `matrix`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PYTHON=${PYTHON:-python3}
read -ra versions <<<"${PYTHONS:-3.11 3.12 3.13}"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/agentic-ray-release.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

environment() { # NAME PYTHON: a fresh environment, its path
  "$2" -m venv "$scratch/$1"
  "$scratch/$1/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
  printf '%s\n' "$scratch/$1"
}

dist() {
  local tools
  tools=$(environment tools "$PYTHON")
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check build twine
  rm -rf dist
  "$tools/bin/python" -m build --outdir dist
  "$tools/bin/python" -m twine check --strict dist/*.whl dist/*.tar.gz
}

wheel() { # the wheel in dist/; built if there is none
  local found=(dist/*.whl)
  [[ -e ${found[0]} ]] || dist >&2
  found=(dist/*.whl)
  printf '%s\n' "${found[0]}"
}

is_version() { # PYTHON VERSION
  [[ $("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$2" ]]
}

find_python() { # VERSION: on the PATH, else of pyenv, else of uv
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if is_version "$candidate" "$1"; then printf '%s\n' "$candidate" && return; fi
  done
  command -v uv >/dev/null && uv python find --no-python-downloads "$1" 2>/dev/null
}

run_demo() { # ENVIRONMENT: from a folder in which there is no source
  (cd "$scratch" && "$1/bin/agentic-ray" demo --check)
}

sbom() {
  local plain tools file
  file=$(wheel)
  plain=$(environment plain "$PYTHON")
  "$plain/bin/python" -m pip install --quiet --disable-pip-version-check "$file"
  tools=$(environment sbom "$PYTHON")
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check cyclonedx-bom
  "$tools/bin/cyclonedx-py" environment --output-reproducible --output-format JSON \
    --output-file dist/sbom.cdx.json "$plain"
  printf 'dist/sbom.cdx.json\n'
}

matrix() {
  local file version python found failed=()
  file=$(wheel)
  for version in "${versions[@]}"; do
    printf '\n== Python %s\n' "$version"
    if ! python=$(find_python "$version"); then
      printf 'there is none here: `uv python install %s`, pyenv or your system brings it\n' "$version"
      failed+=("$version (not found)")
      continue
    fi
    found=$(environment "python$version" "$python")
    "$found/bin/python" -m pip install --quiet --disable-pip-version-check "$file[demo]" &&
      run_demo "$found" || failed+=("$version")
    rm -rf "$found"
  done
  report "${failed[@]}"
}

lowest() {
  local file found
  file=$(wheel)
  found=$(environment lowest "$(find_python 3.11)")
  "$found/bin/python" -m pip install --quiet --disable-pip-version-check uv
  "$found/bin/uv" pip install --quiet --python "$found/bin/python" --resolution lowest-direct \
    "$file[demo]"
  "$found/bin/uv" pip list --python "$found/bin/python"
  run_demo "$found" && report || report 'lowest versions'
}

report() {
  if (($#)); then
    printf '\nfailed: %s\n' "$*" >&2
    return 1
  fi
  printf '\nall passed\n'
}

case ${1:-} in
  dist | sbom | matrix | lowest) "$1" ;;
  *) printf 'usage: %s dist|sbom|matrix|lowest\n' "$0" >&2 && exit 2 ;;
esac
