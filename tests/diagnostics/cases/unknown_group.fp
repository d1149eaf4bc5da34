hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.wbe {
  directory "/srv/a"
}
