#: --limit ,
hosts web {
  host "web1"
}

play "web" on hosts.web {
  directory "/srv/web"
}
