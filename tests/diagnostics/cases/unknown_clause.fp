hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web as x {
  directory "/srv/a"
}
