play "web" on hosts.all {
  directory "/srv/a"
}
