#!/bin/sh
# Puts everything where the team has always had it: Apache under /usr/local/apache2.
set -eu

src=/usr/local/src/fanli
apache=/usr/local/apache2

# Apache: the distribution's program and modules under the old roof. `conf` is a mount.
mkdir -p $apache/bin $apache/conf
ln -sfn /usr/sbin/apache2 $apache/bin/httpd
ln -sfn /usr/lib/apache2/modules $apache/modules
ln -sfn "$(basename /usr/lib/apache2/modules/libphp*.so)" /usr/lib/apache2/modules/mod_php.so
# Apache and `apachectl -t` without further words take the mounted configuration: the generation that is current.
ln -sfn $apache/conf/current/httpd.conf /etc/apache2/apache2.conf
# /run is empty whenever a node starts: `apachectl` finds there what it needs.
echo 'export APACHE_RUN_DIR=/run APACHE_LOCK_DIR=/run APACHE_PID_FILE=/run/httpd.pid' >> /etc/apache2/envvars

# Mount points.
mkdir -p /data/weblogs /usr/local/webdata /usr/local/supervisor /opt/fanliweb /opt/webdata

# The team's own settings (cfg/).
for ini in $src/cfg/php/*.ini; do
    for conf in /etc/php/*/apache2/conf.d; do
        cp "$ini" "$conf/90-$(basename "$ini")"
    done
done
cp $src/cfg/system/timezone /etc/timezone
ln -sfn "/usr/share/zoneinfo/$(cat /etc/timezone)" /etc/localtime
