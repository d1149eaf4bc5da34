hosts web {
  host "localhost" { connection = local }
}

play on hosts.web {
  directory "/srv/a"
}

play "web" {
  directory "/srv/a"
}

play "b" on hosts.web
