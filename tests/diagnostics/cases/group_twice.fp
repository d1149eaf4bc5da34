hosts web {
  host "localhost" { connection = local }
}

hosts web {
  host "web1"
}

play "web" on hosts.web {
  directory "/srv/a"
}
