#!/bin/sh
# Makes the certificates and the API key file of the compose mesh, each role's in its own volume,
# and renews what expires within 60 days. Services read new files by themselves. The CA's key is in
# a volume that only this job mounts.
set -eu
certs=${CERTS:-/certs}

# Prometheus runs as another user; no other service mounts its volume.
if [ -n "${EXPERTMESH_API_KEY:-}" ]; then
  for reader in "gateway 600" "prometheus 644"; do
    file=$certs/${reader% *}/api-key
    (umask 077; printf '%s\n' "$EXPERTMESH_API_KEY" > "$file.new")
    chmod "${reader#* }" "$file.new"
    mv "$file.new" "$file"
  done
fi

if [ -e "$certs/ca/ca-key.pem" ]; then
  expertmesh certs renew --out "$certs/ca" --within 60
else
  expertmesh certs --out "$certs/ca"
fi

# The key before its certificate: a service that reads them in between finds that they do not belong
# together, and keeps the old pair until both are there.
for role in gateway router attention expert cli; do
  for pair in "$role-key.pem role-key.pem" "$role.pem role.pem" "ca.pem ca.pem"; do
    from=${pair% *} to=${pair#* }
    if ! cmp -s "$certs/ca/$from" "$certs/$role/$to"; then
      cp "$certs/ca/$from" "$certs/$role/$to.new"
      mv "$certs/$role/$to.new" "$certs/$role/$to"
    fi
  done
done
