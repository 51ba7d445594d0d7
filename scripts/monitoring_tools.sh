#!/usr/bin/env bash
# Puts Debian's prometheus and prometheus-postgres-exporter, and a Python parser of OpenMetrics, below target/: for tests.
# Nothing is installed or started: packages are only unpacked, so this needs no root. Idempotent.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec >&2

TOOLS=$PGT_TARGET/monitoring-tools
if [ ! -x "$TOOLS/usr/bin/prometheus" ] || [ ! -x "$TOOLS/usr/bin/prometheus-postgres-exporter" ]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || die "this is not a Debian system."
    DOWNLOADS=$(mktemp -d)
    trap 'rm -rf "$DOWNLOADS"' EXIT
    (cd "$DOWNLOADS" && apt-get download prometheus prometheus-postgres-exporter)
    rm -rf "$TOOLS.new"
    for package in "$DOWNLOADS"/*.deb; do dpkg-deb -x "$package" "$TOOLS.new"; done
    rm -rf "$TOOLS"
    mv "$TOOLS.new" "$TOOLS"
fi
if ! "$TOOLS/python/bin/python" -c 'import prometheus_client.openmetrics.parser' 2>/dev/null; then
    rm -rf "$TOOLS/python"
    python3 -m venv "$TOOLS/python"
    "$TOOLS/python/bin/pip" install --quiet 'prometheus_client==0.21.1'
fi
