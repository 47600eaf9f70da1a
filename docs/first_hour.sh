#!/usr/bin/env bash
# From a clean environment to the first result of each of three users: the seconds of each step, and of processors.
#
#   docs/first_hour.sh          # PYTHON names the interpreter, TORCH a requirement of torch
#
# With SITE, a folder of site-packages that has torch, nothing of torch's is downloaded.
set -euo pipefail
export LC_ALL=C.UTF-8

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="${PYTHON:-python3}"

step() {
    local name="$1" TIMEFORMAT="%R %U %S"
    shift
    { time "$@" >"$work/output" 2>&1; } 2>"$work/seconds" \
        || { cat "$work/output"; echo "failed: $name"; exit 1; }
    awk -v name="$name" '{ printf "%7.1f s, %6.1f s of processors  %s\n", $1, $2 + $3, name }' "$work/seconds"
}

install() {
    "$python" -m venv "$work/env"
    if [ -n "${SITE:-}" ]; then
        echo "$SITE" >"$("$work/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')/torch.pth"
    else
        "$work/env/bin/python" -m pip install -q "${TORCH:-torch}"
    fi
    "$work/env/bin/python" -m pip install -q "$root"
}

step "install bitlens" install
export PATH="$work/env/bin:$PATH"
cd "$work"
step "fetch the model" bitlens fetch smollm2-135m-instruct
step "researcher: first activation" python "$root/docs/examples/read_activation.py"
step "engineer: first verdict on a kernel" python "$root/docs/examples/first_verdict.py"
step "engineer: first report" \
    bitlens audit smollm2-135m-instruct --n-prompts 6 --tokens 32 --checked 1 --output report.html
step "safety: first alarm hook" python "$root/docs/examples/first_alarm.py"
