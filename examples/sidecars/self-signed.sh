#!/bin/sh
# Prints a Secret with a new self-signed certificate, for trying the examples: NAME of the secret, then host names.
#
#   examples/sidecars/self-signed.sh web-tls localhost web.example > web-tls.yaml
set -eu
[ $# -ge 2 ] || { echo "usage: $0 NAME HOST..." >&2; exit 2; }
name=$1 host=$2
shift
names=$(printf ',DNS:%s' "$@")
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$host" \
  -addext "subjectAltName=${names#,}" -keyout "$directory/key" -out "$directory/crt" 2>/dev/null
cat <<YAML
apiVersion: v1
kind: Secret
metadata: {name: $name}
type: kubernetes.io/tls
stringData:
  tls.crt: |
$(sed 's/^/    /' "$directory/crt")
  tls.key: |
$(sed 's/^/    /' "$directory/key")
YAML
