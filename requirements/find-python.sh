#!/bin/sh
# Print the command of a Python that farebox can use: PYTHON if it is set, else python3, else a newer one beside it.
set -u

# Run, not looked up: a version manager leaves commands on the path that only print an error.
usable() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    candidates=$PYTHON
else
    candidates="python3 python3.13 python3.12 python3.11 python3.14 python"
fi
seen=
for candidate in $candidates; do
    if usable "$candidate"; then
        echo "$candidate"
        exit 0
    fi
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) &&
        seen="$seen $candidate is $version;"
done
echo "farebox: Python 3.11 or newer is needed;${seen:- none was found ($candidates);}" \
    "install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)" \
    "or name it: make PYTHON=/path/to/python3" >&2
exit 1
