#!/bin/sh
# Creates the user that Apache's children and the log writers run as. Its number is the same on hosts and in nodes,
# because both look at the same mounted directories.
set -eu

: "${ADMIN:?}" "${UID:?}"
groupadd --gid "$UID" "$ADMIN"
useradd --uid "$UID" --gid "$UID" --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$ADMIN"
