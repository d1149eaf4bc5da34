#: --limit web1,lcalhost
hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a"
}
