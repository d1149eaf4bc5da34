import "a.fp"

hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a"
}
