#!/bin/sh
# Installs what a web node runs, and nothing that these packages merely recommend.
set -eu

export DEBIAN_FRONTEND=noninteractive

# No package may start its service while the image is built.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d

# again SECONDS COMMAND: apt was seen to wait for ever for an answer that its own helper had long had.
again() {
    limit=$1
    shift
    for _ in 1 2 3 4; do
        timeout "$limit" "$@" && return
        echo "again: $*"
    done
    return 1
}

packages="apache2 libapache2-mod-php php-curl php-gd php-mbstring php-mysql php-odbc php-redis php-sybase php-xml
    supervisor curl tzdata tdsodbc unixodbc"
again 120 apt-get update -q
# shellcheck disable=SC2086 # names, one word each
again 600 apt-get install -q -y --no-install-recommends --download-only $packages
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $packages

rm -f /usr/sbin/policy-rc.d
apt-get clean
rm -rf /var/lib/apt/lists/*
