#: --tags config --skip-tags config
hosts web {
  host "web1"
}

play "web" on hosts.web {
  directory "/srv/web" { tags = "config" }
}
